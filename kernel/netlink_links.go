package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"

	"golang.org/x/sys/unix"
)

// netlinkLinks are the devices in the kernel.
type netlinkLinks struct {
	conn      *rtnl.Conn
	namespace int
	// ioctl is a socket for what netlink cannot do.
	ioctl *os.File
	watch func() error
}

// List passes all devices.
func (n *netlinkLinks) List(each func(link)) error {
	return n.conn.Dump(func(b *rtnl.Batch) {
		b.Begin(unix.RTM_GETLINK, unix.NLM_F_DUMP, linkHeader(0, 0, 0))
		b.Uint32(unix.IFLA_EXT_MASK, extSkipStats)
	}, func(m rtnl.Message) {
		if l, ok := parseLink(m.Body); ok {
			each(l)
		}
	})
}

// extSkipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: leave out the
// counters.
const extSkipStats = 1 << 3

// errUnknownKind says that a device should have been there already.
var errUnknownKind = errors.New("it is not there, and devices of its kind are not made here")

// Add creates a device that is down.
func (n *netlinkLinks) Add(d Device, alias string) error {
	switch {
	case d.TUN:
		return n.addTUN(d.Name, alias)
	case d.VXLAN == nil:
		return errUnknownKind
	}
	return n.conn.One(func(b *rtnl.Batch) {
		b.Begin(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, linkHeader(0, 0, 0))
		b.Text(unix.IFLA_IFNAME, d.Name)
		b.Uint32(unix.IFLA_MTU, uint32(d.MTU))
		if !d.MAC.IsZero() {
			b.Bytes(unix.IFLA_ADDRESS, d.MAC[:])
		}
		b.Nest(unix.IFLA_LINKINFO, func() {
			b.Text(unix.IFLA_INFO_KIND, kindVXLAN)
			b.Nest(unix.IFLA_INFO_DATA, func() { vxlanAttrs(b, *d.VXLAN) })
		})
	})
}

// vxlanAttrs leaves the checksums of the outer UDP header to the kernel, as
// flannel does: they are on in both families.
func vxlanAttrs(b *rtnl.Batch, v VXLAN) {
	b.Uint32(unix.IFLA_VXLAN_ID, uint32(v.VNI))
	b.Uint32(unix.IFLA_VXLAN_LINK, uint32(v.Uplink))
	local := uint16(unix.IFLA_VXLAN_LOCAL)
	if v.Local.Is6() {
		local = unix.IFLA_VXLAN_LOCAL6
	}
	b.Addr(local, v.Local)
	learning := uint8(0)
	if v.Learning {
		learning = 1
	}
	b.Uint8(unix.IFLA_VXLAN_LEARNING, learning)
	if v.Port != 0 {
		b.Uint16BE(unix.IFLA_VXLAN_PORT, uint16(v.Port))
	}
	if v.GBP {
		b.Bytes(unix.IFLA_VXLAN_GBP, nil)
	}
}

// Change changes a device. Before a device comes up for the first time it is
// told to make no IPv6 address of its own.
func (n *netlinkLinks) Change(index int, c linkChange) error {
	if c.alias != "" && c.up {
		// Kernels without IPv6 refuse it; they make no address either.
		_ = n.conn.One(func(b *rtnl.Batch) {
			b.Begin(unix.RTM_NEWLINK, 0, linkHeader(index, 0, 0))
			b.Nest(unix.IFLA_AF_SPEC, func() {
				b.Nest(unix.AF_INET6, func() { b.Uint8(unix.IFLA_INET6_ADDR_GEN_MODE, addrGenNone) })
			})
		})
	}
	return n.conn.One(func(b *rtnl.Batch) {
		flags := uint32(0)
		if c.up {
			flags = unix.IFF_UP
		}
		b.Begin(unix.RTM_NEWLINK, 0, linkHeader(index, flags, flags))
		if c.mtu != 0 {
			b.Uint32(unix.IFLA_MTU, uint32(c.mtu))
		}
		if !c.mac.IsZero() {
			b.Bytes(unix.IFLA_ADDRESS, c.mac[:])
		}
		if c.alias != "" {
			b.Bytes(unix.IFLA_IFALIAS, []byte(c.alias))
		}
		if c.free {
			b.Uint32(unix.IFLA_MASTER, 0)
		}
	})
}

// addrGenNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const addrGenNone = 1

// Delete removes a device; one that is gone is deleted.
func (n *netlinkLinks) Delete(index int) error {
	err := n.conn.One(func(b *rtnl.Batch) { b.Begin(unix.RTM_DELLINK, 0, linkHeader(index, 0, 0)) })
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Watch makes the events of the watched devices matter.
func (n *netlinkLinks) Watch() error { return n.watch() }

// Probes that the kernel sends to user space before it gives up on an address:
// each is the report of an L3 miss.
const appSolicit = 3

// Prepare turns on reports of L3 misses and turns off router advertisements.
func (n *netlinkLinks) Prepare(l link, d Device) error {
	var errs []error
	for _, f := range ipfam.All() {
		if hasFamily(d.Addrs, f) {
			errs = append(errs, n.reportMisses(f, l))
		}
	}
	if hasFamily(d.Addrs, ipfam.V6) {
		errs = append(errs, n.sysctl("ipv6/conf/"+l.name+"/accept_ra", "0"))
	}
	return errors.Join(errs...)
}

func hasFamily(addrs []netip.Prefix, f ipfam.Family) bool {
	for _, a := range addrs {
		if ipfam.Of(a.Addr()) == f {
			return true
		}
	}
	return false
}

// Attributes of linux/neighbour.h.
const (
	ndtaName       = 1
	ndtaParms      = 6
	ndtpaIfindex   = 1
	ndtpaAppProbes = 9
)

// reportMisses asks through the neighbour table first: that works also where
// /proc/sys cannot be written.
func (n *netlinkLinks) reportMisses(f ipfam.Family, l link) error {
	name := ipfam.Pair[string]{"arp_cache", "ndisc_cache"}[f]
	err := n.conn.One(func(b *rtnl.Batch) {
		b.Begin(unix.RTM_SETNEIGHTBL, 0, []byte{uint8(f.AF()), 0, 0, 0})
		b.Text(ndtaName, name)
		b.Nest(ndtaParms, func() {
			b.Uint32(ndtpaIfindex, uint32(l.index))
			b.Uint32(ndtpaAppProbes, appSolicit)
		})
	})
	if err == nil {
		return nil
	}
	return errors.Join(err, n.sysctl(f.String()+"/neigh/"+l.name+"/app_solicit", fmt.Sprint(appSolicit)))
}

// sysctl writes below /proc/sys/net, which shows the namespace of the thread.
func (n *netlinkLinks) sysctl(name, value string) error {
	return rtnl.Inside(n.namespace, func() error {
		return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	})
}
