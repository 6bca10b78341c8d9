// Package trace asks the kernel where a packet to an address goes, step by step,
// and what devices have counted. It changes nothing.
package trace

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/kernel/rtnl"
)

// Reader asks the kernel of one network namespace.
type Reader struct {
	handle *netlink.Handle
	names  map[int]string
}

// Open returns a Reader of the current namespace.
func Open() (*Reader, error) {
	handle, err := rtnl.NewHandle(0)
	if err != nil {
		return nil, err
	}
	return &Reader{handle: handle}, nil
}

// Close ends a Reader.
func (r *Reader) Close() { r.handle.Close() }

// Device is an interface of this host and what it has counted.
type Device struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	MTU  int    `json:"mtu"`
	Up   bool   `json:"up"`
	// VNI and Port are those of a vxlan device.
	VNI  int `json:"vni,omitempty"`
	Port int `json:"port,omitempty"`

	RxPackets uint64 `json:"rxPackets"`
	RxBytes   uint64 `json:"rxBytes"`
	TxPackets uint64 `json:"txPackets"`
	TxBytes   uint64 `json:"txBytes"`
}

// Devices lists the interfaces of this host by name.
func (r *Reader) Devices() ([]Device, error) {
	var links []netlink.Link
	err := rtnl.Retry(func() (err error) { links, err = r.handle.LinkList(); return err })
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	out := make([]Device, 0, len(links))
	r.names = make(map[int]string, len(links))
	for _, l := range links {
		a := l.Attrs()
		r.names[a.Index] = a.Name
		d := Device{Name: a.Name, Kind: l.Type(), MTU: a.MTU, Up: a.RawFlags&unix.IFF_UP != 0}
		if s := a.Statistics; s != nil {
			d.RxPackets, d.RxBytes, d.TxPackets, d.TxBytes = s.RxPackets, s.RxBytes, s.TxPackets, s.TxBytes
		}
		if v, ok := l.(*netlink.Vxlan); ok {
			d.VNI, d.Port = v.VxlanId, v.Port
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b Device) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// name returns that of an interface.
func (r *Reader) name(index int) string {
	if r.names == nil {
		_, _ = r.Devices() // without names the index has to do
	}
	if name := r.names[index]; name != "" || index == 0 {
		return name
	}
	return fmt.Sprintf("interface %d", index)
}

// Route is a route, or the kernel's answer to the question for one.
type Route struct {
	Dst   netip.Prefix
	Via   netip.Addr
	Dev   string
	Table int
	// Protocol is who made it; kernel.RouteProtocol is this software.
	Protocol int
	// Type is as ip writes it, empty for unicast.
	Type string
}

// String writes a route as ip takes it.
func (r Route) String() string {
	words := []string{r.Dst.String()}
	if r.Type != "" {
		words = []string{r.Type, r.Dst.String()}
	}
	if r.Via.IsValid() {
		words = append(words, "via", r.Via.String())
	}
	if r.Dev != "" && r.Type == "" {
		words = append(words, "dev", r.Dev)
	}
	if r.Table != unix.RT_TABLE_MAIN && r.Table != 0 {
		words = append(words, "table", fmt.Sprint(r.Table))
	}
	if name, ok := protocols[r.Protocol]; ok {
		words = append(words, "proto", name)
	} else if r.Protocol != 0 {
		words = append(words, "proto", fmt.Sprint(r.Protocol))
	}
	return strings.Join(words, " ")
}

var protocols = map[int]string{
	unix.RTPROT_KERNEL: "kernel", unix.RTPROT_BOOT: "boot", unix.RTPROT_STATIC: "static",
	unix.RTPROT_RA: "ra", unix.RTPROT_DHCP: "dhcp", unix.RTPROT_BIRD: "bird", unix.RTPROT_BGP: "bgp",
}

var types = map[int]string{
	unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit",
	unix.RTN_THROW: "throw", unix.RTN_LOCAL: "local",
}

// Lookup asks which entry of which table leads to an address for packets from a
// source, which may be the zero Addr.
func (r *Reader) Lookup(dst, source netip.Addr) (Route, error) {
	o := &netlink.RouteGetOptions{FIBMatch: true}
	if source.IsValid() {
		o.SrcAddr = source.AsSlice()
	}
	list, err := r.handle.RouteGetWithOptions(dst.AsSlice(), o)
	if err == nil && len(list) == 0 {
		err = unix.ENETUNREACH
	}
	if err != nil {
		return Route{}, err
	}
	return r.routeOf(list[0], ipfam.Of(dst)), nil
}

// Routes lists the routes of this software in the main table.
func (r *Reader) Routes() (out []Route, err error) {
	for _, f := range ipfam.All() {
		var list []netlink.Route
		err := rtnl.Retry(func() (err error) {
			list, err = r.handle.RouteListFiltered(f.AF(), &netlink.Route{Protocol: kernel.RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, route := range list {
			out = append(out, r.routeOf(route, f))
		}
	}
	return out, nil
}

func (r *Reader) routeOf(from netlink.Route, f ipfam.Family) Route {
	out := Route{Table: from.Table, Protocol: int(from.Protocol), Type: types[from.Type], Via: addrOf(from.Gw), Dev: r.name(from.LinkIndex)}
	out.Dst = netip.PrefixFrom(ipfam.Pair[netip.Addr]{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[f], 0)
	if from.Dst != nil {
		out.Dst = rtnl.NetworkOf(from.Dst)
	}
	if len(from.MultiPath) > 0 {
		out.Via, out.Dev = addrOf(from.MultiPath[0].Gw), r.name(from.MultiPath[0].LinkIndex)
	}
	return out
}

// Neighbor returns the MAC that a device sends to for an address; the zero MAC if
// there is no entry.
func (r *Reader) Neighbor(dev string, addr netip.Addr) (kernel.MAC, error) {
	var found kernel.MAC
	err := r.neighbors(dev, ipfam.Of(addr).AF(), func(n netlink.Neigh) {
		if addrOf(n.IP) == addr && len(n.HardwareAddr) == len(found) {
			found = kernel.MAC(n.HardwareAddr)
		}
	})
	return found, err
}

// FDB returns the host that a vxlan device sends a MAC to; the zero Addr if there is
// no entry.
func (r *Reader) FDB(dev string, mac kernel.MAC) (netip.Addr, error) {
	var found netip.Addr
	err := r.neighbors(dev, unix.AF_BRIDGE, func(n netlink.Neigh) {
		if slices.Equal(n.HardwareAddr, net.HardwareAddr(mac[:])) && n.IP != nil {
			found = addrOf(n.IP)
		}
	})
	return found, err
}

func (r *Reader) neighbors(dev string, family int, visit func(netlink.Neigh)) error {
	link, err := r.handle.LinkByName(dev)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", dev, err)
	}
	var list []netlink.Neigh
	err = rtnl.Retry(func() (err error) { list, err = r.handle.NeighList(link.Attrs().Index, family); return err })
	if err != nil {
		return fmt.Errorf("list entries of %s: %w", dev, err)
	}
	for _, n := range list {
		visit(n)
	}
	return nil
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
