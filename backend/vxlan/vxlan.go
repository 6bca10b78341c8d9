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

// overhead is what encapsulation takes from the underlay's MTU in bytes: the
// inner Ethernet header 14, vxlan 8, UDP 8 and the outer IP header 20 or 40
// (RFC 7348, section 5).
var overhead = ipfam.Pair[int]{50, 70}

// vxlan plans for vxlan devices.
type vxlan struct {
	env    backend.Env
	config Config
	mac    ipfam.Pair[kernel.MAC]
	// failures logs once that the uplink is too small for the configuration.
	failures *logonce.Failures
}

// New implements backend.Config. It chooses the MAC of the devices: the one
// that an earlier run has published, else the one of an existing device, else
// a random one.
func (c Config) New(env backend.Env) (backend.Backend, error) {
	b := &vxlan{env: env, config: c, failures: logonce.NewFailures(env.Log, slog.LevelWarn)}
	for f, on := range env.Families.Each() {
		if on {
			b.mac[f] = chooseMAC(env, f, c)
		}
	}
	return b, nil
}

func chooseMAC(env backend.Env, f ipfam.Family, config Config) kernel.MAC {
	if env.Previous.BackendType == typeName {
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
func (b *vxlan) Attrs(up backend.Uplink) subnet.Attrs {
	a := b.env.Attrs(typeName, up)
	for f, on := range b.env.Families.Each() {
		if on {
			a.Data[f] = data{b.config.VNI, b.mac[f]}.encode()
		}
	}
	return a
}

// MTU implements backend.Backend: the smaller of the devices' MTUs.
func (b *vxlan) MTU(up backend.Uplink) int {
	mtu := 0
	for f, on := range b.env.Families.Each() {
		if m := b.deviceMTU(f, up); on && (mtu == 0 || m < mtu) {
			mtu = m
		}
	}
	return mtu
}

func (b *vxlan) deviceMTU(f ipfam.Family, up backend.Uplink) int {
	underlay := up.MTU
	if b.config.MTU > 0 {
		// The kernel refuses a device whose packets do not fit into the uplink.
		underlay = min(b.config.MTU, up.MTU)
	}
	return underlay - overhead[f]
}

// device plans the device of one family. Its address is the network address
// of our subnet, as a host prefix.
func (b *vxlan) device(f ipfam.Family, own subnet.Lease, up backend.Uplink) kernel.Device {
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

// wire is how the packets look that go through the device. With GBP the mark of a
// packet is in them, which only the device knows.
func (b *vxlan) wire(d kernel.Device) backend.Wire {
	w := backend.Wire{
		Format: backend.VXLAN, Dev: d.Name, MTU: d.MTU, MAC: d.MAC,
		Uplink: d.VXLAN.Uplink, Local: d.VXLAN.Local, VNI: d.VXLAN.VNI, Port: d.VXLAN.UDPPort(),
	}
	if d.VXLAN.GBP {
		w.Format = backend.Opaque
	}
	return w
}

func (b *vxlan) checkMTU(up backend.Uplink) error {
	b.failures.Fail("Backend.MTU", b.mtuTooLarge(up))
	return backend.CheckMTU(b.MTU(up), b.env.Families, "raise the MTU of "+up.Name+" or Backend.MTU")
}

// mtuTooLarge returns an error if the uplink is too small for the configured MTU.
func (b *vxlan) mtuTooLarge(up backend.Uplink) error {
	if b.config.MTU <= up.MTU {
		return nil
	}
	return fmt.Errorf("%d is more than the %d of %s, which is used instead: raise the MTU of %s or lower the key",
		b.config.MTU, up.MTU, up.Name, up.Name)
}
