package uplink

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flannel/internal/ipfam"
)

// Snapshot is what the host has to choose from.
type Snapshot struct {
	Links []Link
	// Addrs are in the kernel's order: primary addresses come first.
	Addrs []Addr
	// Defaults are the interfaces of the default routes, best first.
	Defaults ipfam.Pair[[]int]
	// Reach is what the lookup of Options.CanReach gave.
	Reach Reach
}

// Link is an interface.
type Link struct {
	Index int
	Name  string
	MTU   int
	Up    bool
}

// Addr is an address of an interface.
type Addr struct {
	Link int
	IP   netip.Addr
	// Dynamic addresses have a lifetime: a router or a DHCP server gave them.
	Dynamic bool
	// Unfit addresses are temporary (RFC 8981), deprecated, or not checked yet
	// for being unique; they are used only when a flag names them.
	Unfit bool
}

// Reach is the result of a route lookup.
type Reach struct {
	Link   int
	Source netip.Addr
	Err    error
}

func (s Snapshot) linkByIndex(index int) (Link, bool) {
	return s.link(func(l Link) bool { return l.Index == index })
}

func (s Snapshot) linkByName(name string) (Link, bool) {
	return s.link(func(l Link) bool { return l.Name == name })
}

func (s Snapshot) link(fits func(Link) bool) (Link, bool) {
	i := slices.IndexFunc(s.Links, fits)
	if i < 0 {
		return Link{}, false
	}
	return s.Links[i], true
}

// has reports whether the interface has this address.
func (s Snapshot) has(index int, ip netip.Addr) bool {
	return slices.ContainsFunc(s.Addrs, func(a Addr) bool { return a.Link == index && a.IP == ip })
}

// usable returns the addresses of an interface in one family that may carry
// traffic, the best first: global before link-local, permanent before dynamic.
func (s Snapshot) usable(index int, f ipfam.Family) []netip.Addr {
	var fit []Addr
	for _, a := range s.Addrs {
		if a.Link == index && ipfam.Of(a.IP) == f && !a.Unfit && routable(a.IP) {
			fit = append(fit, a)
		}
	}
	rank := func(a Addr) int {
		n := 0
		if a.IP.IsLinkLocalUnicast() {
			n += 2
		}
		if a.Dynamic {
			n++
		}
		return n
	}
	slices.SortStableFunc(fit, func(a, b Addr) int { return cmp.Compare(rank(a), rank(b)) })
	ips := make([]netip.Addr, len(fit))
	for i, a := range fit {
		ips[i] = a.IP
	}
	return ips
}

// routable reports whether a node could be reached at this address.
func routable(a netip.Addr) bool {
	return a.IsGlobalUnicast() || a.IsLinkLocalUnicast()
}

// describe lists interfaces with their addresses for people. A host may have
// hundreds of them; those with more addresses give more.
func (s Snapshot) describe(families ipfam.Pair[bool]) string {
	const most = 12
	type entry struct {
		name  string
		addrs []netip.Addr
	}
	var entries []entry
	for _, l := range s.Links {
		e := entry{name: l.Name}
		for f, on := range families.Each() {
			if on {
				e.addrs = append(e.addrs, s.usable(l.Index, f)...)
			}
		}
		entries = append(entries, e)
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(len(b.addrs), len(a.addrs)) })
	var texts []string
	for _, e := range entries[:min(len(entries), most)] {
		text := e.name + " without address"
		if len(e.addrs) > 0 {
			text = fmt.Sprintf("%s (%s)", e.name, strings.Trim(fmt.Sprint(e.addrs), "[]"))
		}
		texts = append(texts, text)
	}
	if more := len(entries) - most; more > 0 {
		texts = append(texts, fmt.Sprintf("%d more", more))
	}
	if len(texts) == 0 {
		return "no interface"
	}
	return strings.Join(texts, ", ")
}
