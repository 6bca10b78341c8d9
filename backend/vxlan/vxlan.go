package vxlan

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/netip"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/logonce"
	"flannel/kernel"
	"flannel/subnet"
)

// Type is the backend type in records and configuration.
const Type = "vxlan"

// overhead is what encapsulation takes from the underlay's MTU in bytes: the
// inner Ethernet header 14, vxlan 8, UDP 8 and the outer IP header 20 or 40
// (RFC 7348, section 5).
var overhead = ipfam.Pair[int]{50, 70}

// minIPv6MTU is the smallest MTU a link may have for IPv6 (RFC 8200, section 5).
const minIPv6MTU = 1280

// Backend plans for vxlan devices.
type Backend struct {
	env    backend.Env
	config Config
	mac    ipfam.Pair[kernel.MAC]
	// repeat says once what the uplink makes of the configuration.
	repeat *logonce.Failures
}

// New checks the configuration and chooses the MAC of the devices: the one
// that an earlier run has published, else the one of an existing device, else
// a random one.
func New(env backend.Env) (backend.Backend, error) {
	config, warnings, err := ParseConfig(env.Options, env.Families)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		env.Log.Warn("backend configuration", "problem", w)
	}
	b := &Backend{env: env, config: config, repeat: logonce.NewFailures(env.Log, slog.LevelWarn)}
	for f, on := range env.Families.Each() {
		if on {
			b.mac[f] = chooseMAC(env, f, config)
		}
	}
	return b, nil
}

func chooseMAC(env backend.Env, f ipfam.Family, config Config) kernel.MAC {
	if env.Previous.BackendType == Type {
		if d, err := parseData(env.Previous.Data[f]); err == nil {
			return d.MAC
		}
	}
	if mac := env.DeviceMAC(deviceName(f, config.VNI)); mac.IsUnicast() {
		return mac
	}
	return randomMAC()
}

// randomMAC returns a locally administered unicast address (IEEE 802, U/L and
// I/G bits).
func randomMAC() kernel.MAC {
	var mac kernel.MAC
	rand.Read(mac[:])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// Attrs implements backend.Backend.
func (b *Backend) Attrs(up backend.Uplink) subnet.Attrs {
	a := b.env.Attrs(Type, up)
	for f, on := range b.env.Families.Each() {
		if on {
			a.Data[f] = data{b.config.VNI, b.mac[f]}.encode()
		}
	}
	return a
}

// UsesLinks implements backend.LinkUser.
func (b *Backend) UsesLinks() bool { return b.config.DirectRouting }

// MTU implements backend.Backend: the smaller of the devices' MTUs.
func (b *Backend) MTU(up backend.Uplink) int {
	mtu := 0
	for f, on := range b.env.Families.Each() {
		if m := b.deviceMTU(f, up); on && (mtu == 0 || m < mtu) {
			mtu = m
		}
	}
	return mtu
}

func (b *Backend) deviceMTU(f ipfam.Family, up backend.Uplink) int {
	underlay := up.MTU
	if b.config.MTU > 0 {
		// The kernel refuses a device whose packets do not fit into the uplink.
		underlay = min(b.config.MTU, up.MTU)
	}
	return underlay - overhead[f]
}

// device plans the device of one family. Its address is the network address
// of the own subnet, as a host prefix.
func (b *Backend) device(f ipfam.Family, own subnet.Lease, up backend.Uplink) kernel.Device {
	return kernel.Device{
		Name:          deviceName(f, b.config.VNI),
		MTU:           b.deviceMTU(f, up),
		MAC:           b.mac[f],
		Addrs:         []netip.Prefix{ipfam.Host(own.Subnet[f].Addr())},
		TxChecksumOff: !b.config.ChecksumOffload,
		VXLAN: &kernel.VXLAN{
			VNI:      b.config.VNI,
			Port:     b.config.Port,
			Local:    up.Addr[f],
			Uplink:   up.Index,
			Learning: b.config.Learning,
			GBP:      b.config.GBP,
		},
	}
}

func (b *Backend) checkMTU(up backend.Uplink) error {
	b.repeat.Fail("Backend.MTU", b.mtuTooLarge(up))
	if mtu := b.MTU(up); b.env.Families[ipfam.V6] && mtu < minIPv6MTU {
		return fmt.Errorf("MTU %d of the overlay is below %d, the least for IPv6: raise the MTU of %s or Backend.MTU",
			mtu, minIPv6MTU, up.Name)
	}
	return nil
}

// mtuTooLarge says that the configured MTU cannot be had.
func (b *Backend) mtuTooLarge(up backend.Uplink) error {
	if b.config.MTU <= up.MTU {
		return nil
	}
	return fmt.Errorf("%d is more than the %d of %s, which is used instead: raise the MTU of %s or lower the key",
		b.config.MTU, up.MTU, up.Name, up.Name)
}
