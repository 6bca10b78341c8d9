package uplink

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"
)

// eventSummary is what a batch of events means.
type eventSummary struct {
	// look: the host has to be looked at.
	look bool
	// kick: something of the uplink was gone for a moment, so routes
	// over it may be missing although all looks the same.
	kick bool
	// down: the uplink was down.
	down bool
	// added are addresses that the uplink got before one in use of their
	// family was removed; removed: this has happened.
	added   []netip.Addr
	removed ipfam.Pair[bool]
}

// merge adds what happened afterwards.
func (s *eventSummary) merge(later eventSummary) {
	for _, ip := range later.added {
		if !s.removed[ipfam.Of(ip)] {
			s.added = append(s.added, ip)
		}
	}
	for f := range s.removed {
		s.removed[f] = s.removed[f] || later.removed[f]
	}
	s.look = s.look || later.look
	s.kick = s.kick || later.kick
	s.down = s.down || later.down
}

// subscription is which events matter.
type subscription struct {
	// index and addrs are those of the uplink in use.
	index int
	addrs ipfam.Pair[netip.Addr]
	// any: every link and address matters, because an uplink is being
	// looked for.
	any bool
	// defaultRoutes, allRoutes: these routes matter.
	defaultRoutes, allRoutes bool
	// table is set if the on-link routes are tracked.
	table *linkTable
}

func (s subscription) wantsRoutes() bool { return s.defaultRoutes || s.allRoutes || s.table != nil }

// classify returns the meaning of an event. It keeps nothing of the message.
func (s subscription) classify(m rtnl.Message) eventSummary {
	switch m.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return s.classifyLink(m)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return s.classifyAddr(m)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return s.classifyRoute(m)
	}
	return eventSummary{}
}

func (s subscription) classifyLink(m rtnl.Message) eventSummary {
	e, ok := rtnl.ParseLinkEvent(m)
	switch {
	case !ok:
		return eventSummary{}
	case e.Index != s.index:
		return eventSummary{look: s.concerns(e.Index)}
	}
	return eventSummary{look: true, kick: m.Type == unix.RTM_DELLINK, down: !e.Up}
}

func (s subscription) classifyAddr(m rtnl.Message) eventSummary {
	e, ok := rtnl.ParseAddrEvent(m)
	if !ok {
		return eventSummary{}
	}
	if e.Dev != s.index {
		return eventSummary{look: s.concerns(e.Dev)}
	}
	out, ip := eventSummary{look: true}, e.Addr.Addr()
	switch f := ipfam.Of(ip); {
	case m.Type == unix.RTM_NEWADDR:
		out.added = []netip.Addr{ip}
	case ip == s.addrs[f]:
		out.kick, out.removed[f] = true, true
	}
	return out
}

// concerns reports whether events of an interface other than the uplink
// matter. Routes over it vanish with it and are not reported.
func (s subscription) concerns(index int) bool {
	return s.any || s.table != nil && s.table.elsewhere[index]
}

func (s subscription) classifyRoute(m rtnl.Message) eventSummary {
	if s.allRoutes {
		return eventSummary{look: true}
	}
	r, ok := rtnl.ParseRoute(m.Body)
	if !ok {
		return eventSummary{}
	}
	return eventSummary{look: s.defaultRoutes && r.Dst.Bits() == 0 || s.table != nil && s.table.relevant(r)}
}
