package uplink

import (
	"cmp"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/kernel/rtnl"
)

// linkTable collects the routes that decide which addresses are on the link of
// an interface. Routes arrive twice: first those that leave by the interface,
// then all. So it stays small on a host with very many routes.
type linkTable struct {
	index   int
	entries map[netip.Prefix]entry
	onLink  []netip.Prefix
	// elsewhere are the other interfaces that entries lead to.
	elsewhere map[int]bool
}

type entry struct {
	metric int
	direct bool
}

func newLinkTable(index int) *linkTable {
	return &linkTable{index: index, entries: map[netip.Prefix]entry{}, elsewhere: map[int]bool{}}
}

// counts reports whether a route can matter at all: ours do not.
func counts(r rtnl.Route) bool {
	return r.Table == unix.RT_TABLE_MAIN && r.Flags&unix.RTM_F_CLONED == 0 && r.Protocol != kernel.RouteProtocol &&
		!r.Dst.Addr().IsLinkLocalUnicast() && !r.Dst.Addr().IsMulticast()
}

// isOnLink reports whether the destination is on the link of the interface.
func (t *linkTable) isOnLink(r rtnl.Route) bool {
	return r.Type == unix.RTN_UNICAST && r.Dev == t.index && !r.Gateway.IsValid() && !r.Via && !r.Multipath()
}

// firstDev returns the interface of the only or the first next hop; 0 is none.
func firstDev(r rtnl.Route) (dev int) {
	for hop := range r.NextHops() {
		dev = cmp.Or(dev, hop.Dev)
	}
	return dev
}

// addOnLink takes the prefixes that are on the interface's link.
func (t *linkTable) addOnLink(r rtnl.Route) {
	if counts(r) && t.isOnLink(r) {
		t.put(r)
	}
}

// add takes the prefixes that are more specific than one on the link.
func (t *linkTable) add(r rtnl.Route) {
	if !counts(r) || !t.inside(r.Dst) {
		return
	}
	t.put(r)
	if dev := firstDev(r); dev != 0 && dev != t.index {
		t.elsewhere[dev] = true
	}
}

func (t *linkTable) put(r rtnl.Route) {
	have, ok := t.entries[r.Dst]
	if ok && have.metric <= r.Metric {
		return
	}
	direct := t.isOnLink(r)
	t.entries[r.Dst] = entry{r.Metric, direct}
	if direct {
		t.onLink = append(t.onLink, r.Dst)
	}
}

func (t *linkTable) inside(p netip.Prefix) bool {
	return ipfam.WithinAny(t.onLink, p)
}

// links returns the prefixes, the most specific first. Those that
// lead to the same link as the next larger one are left out.
func (t *linkTable) links() backend.OnLinkRoutes {
	var list backend.OnLinkRoutes
	for p, e := range t.entries {
		if e.direct != t.around(p) {
			list = append(list, backend.OnLinkRoute{Prefix: p, Direct: e.direct})
		}
	}
	slices.SortFunc(list, func(a, b backend.OnLinkRoute) int {
		return cmp.Or(cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), a.Prefix.Addr().Compare(b.Prefix.Addr()))
	})
	slices.Reverse(list)
	return list
}

// around reports whether the addresses around a prefix are on the link.
func (t *linkTable) around(p netip.Prefix) bool {
	for bits := p.Bits() - 1; bits >= 0; bits-- {
		outer, _ := p.Addr().Prefix(bits)
		if e, ok := t.entries[outer]; ok {
			return e.direct
		}
	}
	return false
}

// relevant reports whether a route that appears or vanishes can change the table.
func (t *linkTable) relevant(r rtnl.Route) bool {
	return counts(r) && (t.isOnLink(r) || t.inside(r.Dst))
}
