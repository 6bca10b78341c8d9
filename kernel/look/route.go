package look

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/kernel/rtnl"
)

// Route is a route, or the kernel's answer to the question for one.
type Route struct {
	Dst netip.Prefix
	// Via and Dev are those of the first next hop, if there are several.
	Via           netip.Addr
	Dev           string
	Table, Metric int
	// Protocol is who made it.
	Protocol int
	// Type is as ip writes it, empty for unicast.
	Type string
}

// IsOurs reports whether a route has the protocol number of this software.
func (r Route) IsOurs() bool { return r.Protocol == kernel.RouteProtocol }

// IsMain reports whether a route is in the main table.
func (r Route) IsMain() bool { return r.Table == unix.RT_TABLE_MAIN || r.Table == 0 }

// String writes a route as ip takes it.
func (r Route) String() string {
	words := []string{r.Dst.String()}
	if r.Type != "" {
		words = []string{r.Type, r.Dst.String()}
	}
	add := func(name, value string) { words = append(words, name, value) }
	if r.Via.IsValid() {
		add("via", r.Via.String())
	}
	if r.Dev != "" && r.Type == "" {
		add("dev", r.Dev)
	}
	if !r.IsMain() {
		add("table", fmt.Sprint(r.Table))
	}
	if name, ok := protocols[r.Protocol]; ok {
		add("proto", name)
	} else if r.Protocol != 0 {
		add("proto", fmt.Sprint(r.Protocol))
	}
	if r.Metric != 0 {
		add("metric", fmt.Sprint(r.Metric))
	}
	return strings.Join(words, " ")
}

var protocols = map[int]string{
	unix.RTPROT_KERNEL: "kernel", unix.RTPROT_BOOT: "boot", unix.RTPROT_STATIC: "static",
	unix.RTPROT_RA: "ra", unix.RTPROT_DHCP: "dhcp", unix.RTPROT_BIRD: "bird", unix.RTPROT_BGP: "bgp",
}

// types are those of routes that lead somewhere, or drop. Others are for addresses of
// this host.
var types = map[uint8]string{
	unix.RTN_UNICAST: "", unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit",
	unix.RTN_THROW: "throw",
}

// Routes lists those routes of all tables that are wanted, without those for
// addresses of this host.
func (r *Reader) Routes(wanted func(Route) bool) (out []Route, err error) {
	err = rtnl.Retry(func() error {
		out = nil
		return r.conn.Dump(func(b *rtnl.Batch) {
			b.Route(unix.RTM_GETROUTE, unix.NLM_F_DUMP, unix.RtMsg{})
		}, func(m rtnl.Message) {
			from, ok := rtnl.ParseRoute(m.Body)
			if _, leads := types[from.Type]; !ok || !leads || from.Flags&unix.RTM_F_CLONED != 0 {
				return
			}
			if route := r.routeOf(from); wanted(route) {
				out = append(out, route)
			}
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return out, nil
}

// Lookup asks which entry of which table leads to an address for packets from a
// source, which may be the zero Addr.
func (r *Reader) Lookup(dst, source netip.Addr) (out Route, err error) {
	family := uint8(ipfam.Of(dst).AF())
	found := false
	err = r.conn.Dump(func(b *rtnl.Batch) {
		h := unix.RtMsg{Family: family, Dst_len: uint8(dst.BitLen()), Flags: unix.RTM_F_FIB_MATCH}
		if dst.Is4() {
			h.Flags |= unix.RTM_F_LOOKUP_TABLE // IPv6 names the table in any case, and refuses the flag
		}
		if source.IsValid() {
			h.Src_len = uint8(source.BitLen())
		}
		b.Route(unix.RTM_GETROUTE, 0, h)
		b.Addr(unix.RTA_DST, dst)
		if source.IsValid() {
			b.Addr(unix.RTA_SRC, source)
		}
	}, func(m rtnl.Message) {
		if from, ok := rtnl.ParseRoute(m.Body); ok {
			out, found = r.routeOf(from), true
		}
	})
	if err == nil && !found {
		err = unix.ENETUNREACH
	}
	return out, err
}

func (r *Reader) routeOf(from rtnl.Route) Route {
	out := Route{Dst: from.Dst, Table: from.Table, Metric: from.Metric, Protocol: int(from.Protocol), Type: types[from.Type]}
	if from.Type == unix.RTN_LOCAL {
		out.Type = "local"
	}
	for hop := range from.NextHops() {
		out.Via, out.Dev = hop.Gateway, r.name(hop.Dev)
		break
	}
	return out
}

// name returns that of a device; of one that is newer than the Reader the number has
// to do.
func (r *Reader) name(index int) string {
	name, ok := r.names[index]
	if !ok && index != 0 {
		return fmt.Sprintf("interface %d", index)
	}
	return name
}
