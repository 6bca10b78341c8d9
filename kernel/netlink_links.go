package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"
)

// The kinds of devices that are made here, as the library calls them.
const (
	KindVXLAN = "vxlan"
	KindTUN   = "tuntap"
)

// netlinkLinks are the devices in the kernel.
type netlinkLinks struct {
	conn      *rtnl.Conn
	handle    *netlink.Handle
	namespace int
	// ioctl is a socket for what netlink cannot do.
	ioctl *os.File
}

// ReadLinks lists the devices that a handle sees.
func ReadLinks(handle *netlink.Handle) ([]Link, error) {
	var list []netlink.Link
	err := rtnl.Retry(func() (err error) { list, err = handle.LinkList(); return err })
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	out := make([]Link, len(list))
	for i, l := range list {
		out[i] = linkOf(l)
	}
	return out, nil
}

// List passes all devices.
func (n *netlinkLinks) List(each func(Link)) error {
	list, err := ReadLinks(n.handle)
	for _, l := range list {
		each(l)
	}
	return err
}

// Get reads one device.
func (n *netlinkLinks) Get(index int) (Link, error) {
	l, err := n.handle.LinkByIndex(index)
	if err != nil {
		return Link{}, err
	}
	return linkOf(l), nil
}

func linkOf(l netlink.Link) Link {
	a := l.Attrs()
	out := Link{
		Index: a.Index, Name: a.Name, Kind: l.Type(), Alias: a.Alias, MTU: a.MTU, MAC: macOf(a.HardwareAddr),
		Up: a.RawFlags&unix.IFF_UP != 0, Master: a.MasterIndex,
	}
	if v, ok := l.(*netlink.Vxlan); ok {
		local, _ := netip.AddrFromSlice(v.SrcAddr)
		out.VXLAN = VXLAN{VNI: v.VxlanId, Port: v.Port, Local: local, Uplink: v.VtepDevIndex, Learning: v.Learning, GBP: v.GBP}
	}
	return out
}

// macOf returns an Ethernet address; any other is the zero MAC.
func macOf(a net.HardwareAddr) MAC {
	if len(a) != len(MAC{}) {
		return MAC{}
	}
	return MAC(a)
}

// ErrUnknownKind means that a device should have been there already.
var ErrUnknownKind = errors.New("it does not exist, and devices of its kind are not created here")

// Add creates a device that is down.
func (n *netlinkLinks) Add(d Device, alias string) error {
	switch {
	case d.TUN:
		return n.addTUN(d.Name, alias)
	case d.VXLAN == nil:
		return ErrUnknownKind
	}
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU = d.Name, d.MTU
	if !d.MAC.IsZero() {
		a.HardwareAddr = d.MAC[:]
	}
	// The checksums of the outer UDP header are on in both families, as with
	// flannel: that is the kernel's default.
	return n.handle.LinkAdd(&netlink.Vxlan{
		LinkAttrs: a, VxlanId: d.VXLAN.VNI, VtepDevIndex: d.VXLAN.Uplink, SrcAddr: d.VXLAN.Local.AsSlice(),
		Port: d.VXLAN.Port, Learning: d.VXLAN.Learning, GBP: d.VXLAN.GBP,
	})
}

// addTUN creates a TUN device with its mark.
func (n *netlinkLinks) addTUN(name, alias string) error {
	if err := rtnl.Inside(n.namespace, func() error { return makeTUN(name) }); err != nil {
		return err
	}
	l, err := n.handle.LinkByName(name)
	if err != nil {
		return err
	}
	return n.handle.LinkSetAlias(l, alias)
}

// Change changes a device. Before a device comes up for the first time it is
// told to make no IPv6 address of its own.
func (n *netlinkLinks) Change(index int, c LinkChange) error {
	l := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	if c.Alias != "" && c.Up {
		// Kernels without IPv6 refuse it; they make no address either.
		_ = n.handle.LinkSetIP6AddrGenMode(l, addrGenNone)
	}
	var steps []func() error
	add := func(wanted bool, step func() error) {
		if wanted {
			steps = append(steps, step)
		}
	}
	add(!c.MAC.IsZero(), func() error { return n.handle.LinkSetHardwareAddr(l, c.MAC[:]) })
	add(c.MTU != 0, func() error { return n.handle.LinkSetMTU(l, c.MTU) })
	add(c.Alias != "", func() error { return n.handle.LinkSetAlias(l, c.Alias) })
	add(c.Free, func() error { return n.handle.LinkSetNoMaster(l) })
	add(c.Up, func() error { return n.handle.LinkSetUp(l) })
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// addrGenNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const addrGenNone = 1

// Delete removes a device; one that is gone is deleted.
func (n *netlinkLinks) Delete(index int) error {
	err := n.handle.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}})
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Probes that the kernel sends to user space before it gives up on an address:
// each is the report of an L3 miss.
const appSolicit = 3

// Prepare turns on reports of L3 misses and turns off router advertisements.
func (n *netlinkLinks) Prepare(l Link, d Device) error {
	var errs []error
	for _, f := range ipfam.All() {
		if hasFamily(d.Addrs, f) {
			errs = append(errs, n.reportMisses(f, l))
		}
	}
	if hasFamily(d.Addrs, ipfam.V6) {
		errs = append(errs, n.sysctl("ipv6/conf/"+l.Name+"/accept_ra", "0"))
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

// reportMisses asks through the neighbor table first: that works also where
// /proc/sys cannot be written.
func (n *netlinkLinks) reportMisses(f ipfam.Family, l Link) error {
	name := ipfam.Pair[string]{"arp_cache", "ndisc_cache"}[f]
	err := n.conn.One(func(b *rtnl.Batch) {
		b.Begin(unix.RTM_SETNEIGHTBL, 0, []byte{uint8(f.AF()), 0, 0, 0})
		b.Text(ndtaName, name)
		b.Nest(ndtaParms, func() {
			b.Uint32(ndtpaIfindex, uint32(l.Index))
			b.Uint32(ndtpaAppProbes, appSolicit)
		})
	})
	if err == nil {
		return nil
	}
	return errors.Join(err, n.sysctl(f.String()+"/neigh/"+l.Name+"/app_solicit", fmt.Sprint(appSolicit)))
}

// sysctl writes below /proc/sys/net, which shows the namespace of the thread.
func (n *netlinkLinks) sysctl(name, value string) error {
	return rtnl.Inside(n.namespace, func() error {
		return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	})
}
