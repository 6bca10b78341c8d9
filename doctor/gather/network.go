package gather

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/doctor"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/kernel/rtnl"
)

// network reads devices, addresses and routes, and asks for the routes to peers.
func (g gatherer) network() error {
	handle, err := rtnl.NewHandle(0)
	if err != nil {
		return err
	}
	defer handle.Close()
	f := g.facts
	var failed []error
	f.Links, err = kernel.ReadLinks(handle)
	failed = append(failed, err)
	f.Addrs, err = kernel.ReadAddrs(handle)
	failed = append(failed, err)
	f.Routes, err = routes(f)
	failed = append(failed, err)
	for _, dst := range f.Destinations() {
		f.Lookups = append(f.Lookups, lookup(handle, f, dst))
	}
	return errors.Join(failed...)
}

var types = map[uint8]string{
	unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw",
}

// routes lists what all tables hold inside the overlay networks, but for the
// addresses of this host.
func routes(f *doctor.Facts) ([]doctor.Route, error) {
	conn, err := rtnl.Dial(0)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	defer func() { _ = conn.Close() }()
	var out []doctor.Route
	err = rtnl.Retry(func() error {
		out = nil
		return conn.Dump(func(b *rtnl.Batch) {
			b.Route(unix.RTM_GETROUTE, unix.NLM_F_DUMP, unix.RtMsg{})
		}, func(m rtnl.Message) {
			r, ok := rtnl.ParseRoute(m.Body)
			if !ok || r.Flags&unix.RTM_F_CLONED != 0 || !f.Inside(r.Dst) {
				return
			}
			if _, drops := types[r.Type]; !drops && r.Type != unix.RTN_UNICAST {
				return
			}
			out = append(out, routeOf(f, r))
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return out, nil
}

func routeOf(f *doctor.Facts, r rtnl.Route) doctor.Route {
	out := doctor.Route{Table: r.Table, Dst: r.Dst, Via: r.Gateway, Protocol: int(r.Protocol), Type: types[r.Type]}
	for hop := range r.NextHops() {
		if out.Dev == "" {
			out.Via, out.Dev = hop.Gateway, deviceName(f, hop.Dev)
		}
	}
	return out
}

func deviceName(f *doctor.Facts, index int) string {
	for _, l := range f.Links {
		if l.Index == index {
			return l.Name
		}
	}
	return ""
}

// lookup asks which entry of which table leads to an address. Packets of pods are
// like those of this host from its address in the pods' subnet: rules may look at
// where they come from.
func lookup(handle *netlink.Handle, f *doctor.Facts, dst netip.Addr) doctor.Lookup {
	o := &netlink.RouteGetOptions{FIBMatch: true}
	if source := f.PodSource(ipfam.Of(dst)); source.IsValid() {
		o.SrcAddr = source.AsSlice()
	}
	list, err := handle.RouteGetWithOptions(dst.AsSlice(), o)
	if err == nil && len(list) == 0 {
		err = unix.ENETUNREACH
	}
	if err != nil {
		return doctor.Lookup{Dst: dst, Err: err}
	}
	r := list[0]
	out := doctor.Route{Table: r.Table, Dev: deviceName(f, r.LinkIndex), Protocol: int(r.Protocol), Type: types[uint8(r.Type)]}
	out.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if dst.Is6() {
		out.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if r.Dst != nil {
		a, _ := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		out.Dst = netip.PrefixFrom(a.Unmap(), bits)
	}
	if a, ok := netip.AddrFromSlice(r.Gw); ok {
		out.Via = a.Unmap()
	}
	if len(r.MultiPath) > 0 {
		hop := r.MultiPath[0]
		out.Dev = deviceName(f, hop.LinkIndex)
		if a, ok := netip.AddrFromSlice(hop.Gw); ok {
			out.Via = a.Unmap()
		}
	}
	return doctor.Lookup{Dst: dst, Route: out}
}
