package gather

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"flannel/doctor"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/kernel/rtnl"
	"flannel/kernel/trace"
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
	k, err := trace.Open()
	if err != nil {
		return errors.Join(append(failed, err)...)
	}
	defer k.Close()
	for _, dst := range f.Destinations() {
		f.Lookups = append(f.Lookups, lookup(k, f, dst))
	}
	return errors.Join(failed...)
}

var types = map[uint8]string{
	unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw",
}

// routes lists what all tables hold inside the overlay networks, but for the
// addresses of this host.
func routes(f *doctor.Facts) ([]trace.Route, error) {
	conn, err := rtnl.Dial(0)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	defer func() { _ = conn.Close() }()
	var out []trace.Route
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

func routeOf(f *doctor.Facts, r rtnl.Route) trace.Route {
	out := trace.Route{Table: r.Table, Dst: r.Dst, Via: r.Gateway, Protocol: int(r.Protocol), Type: types[r.Type]}
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

// lookup asks for the way to an address. Packets of pods are like those of this host
// from its address in the pods' subnet: rules may look at where they come from.
func lookup(k *trace.Reader, f *doctor.Facts, dst netip.Addr) doctor.Lookup {
	r, err := k.Lookup(dst, f.PodSource(ipfam.Of(dst)))
	return doctor.Lookup{Dst: dst, Route: r, Err: err}
}
