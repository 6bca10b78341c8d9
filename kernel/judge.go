package kernel

import (
	"slices"

	"flannel/kernel/rtnl"

	"golang.org/x/sys/unix"
)

// judge compares an event with what is remembered and reports whether the
// kernel may differ from it. txChecksum tells whether transmit checksum offload
// of a device is on.
func (r *reconciler) judge(m rtnl.Message, txChecksum func(name string) (bool, error)) (tampered bool) {
	if m.Type == unix.RTM_GETNEIGH {
		return false // a question; see miss
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	if r.isTamperingLocked(m, txChecksum) {
		return true
	}
	if r.listing && len(r.unjudged) < maxUnjudged {
		m.Body = slices.Clone(m.Body)
		r.unjudged = append(r.unjudged, m)
	}
	return false
}

// miss returns what address the kernel asks for on a device of ours.
func (r *reconciler) miss(m rtnl.Message) (Miss, bool) {
	if m.Type != unix.RTM_GETNEIGH {
		return Miss{}, false
	}
	miss, ok := ParseMiss(m.Body)
	return miss, ok && r.isOwn(miss.Index)
}

func (r *reconciler) isOwn(dev int) bool {
	r.lock.Lock()
	defer r.lock.Unlock()
	return r.watched[dev].own
}

// maxUnjudged bounds the events that are kept while the tables are listed.
const maxUnjudged = 4096

// judgeAgainLocked judges the events that came while the tables were listed,
// because what they are about may have been listed before it was changed.
func (r *reconciler) judgeAgainLocked() bool {
	bad := len(r.unjudged) >= maxUnjudged
	for _, m := range r.unjudged {
		// The device's own settings have not been listed.
		bad = bad || r.isTamperingLocked(m, func(string) (bool, error) { return false, nil })
	}
	r.unjudged = nil
	return bad
}

func (r *reconciler) isTamperingLocked(m rtnl.Message, txChecksum func(name string) (bool, error)) bool {
	switch m.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return r.judgeLinkLocked(m, txChecksum)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return r.judgeAddrLocked(m)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return r.judgeNeighLocked(m)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return r.judgeRouteLocked(m)
	}
	return false
}

// judgeLinkLocked: a link that went down, or away, took routes with it without a
// word, even if it is back already.
func (r *reconciler) judgeLinkLocked(m rtnl.Message, txChecksum func(name string) (bool, error)) bool {
	got, ok := parseLink(m.Body)
	if !ok {
		return false
	}
	w, ok := r.watched[got.index]
	switch {
	case !ok:
		return false
	case m.Type == unix.RTM_DELLINK:
		delete(r.watched, got.index)
		return true
	case !w.own:
		return r.judgeUplinkLocked(got, w)
	case !got.up || got.name != w.name || got.mtu != w.mtu || got.mac != w.mac || got.alias != w.alias:
		return true
	case got.master != w.master || got.vxlan != w.vxlan:
		return true
	case w.txChecksumOff:
		on, err := txChecksum(w.name)
		return err != nil || on
	}
	return false
}

func (r *reconciler) judgeUplinkLocked(got link, w watchedLink) bool {
	if got.up == w.up && got.name == w.name {
		return false
	}
	w.up, w.name = got.up, got.name
	r.watched[got.index] = w
	return true
}

// judgeAddrLocked: the last address of a device takes the device's routes with it
// without a word.
func (r *reconciler) judgeAddrLocked(m rtnl.Message) bool {
	k, ok := parseAddr(m.Body)
	if !ok {
		return false
	}
	w, watched := r.watched[k.dev]
	_, known := r.addrs[k]
	switch {
	case !watched:
		return false
	case m.Type == unix.RTM_DELADDR:
		return known || !w.own
	default:
		return w.own && !known && !k.prefix.Addr().IsLinkLocalUnicast()
	}
}

// judgeNeighLocked: FDB events do not say who caused them. Those of our own
// writes agree with what is remembered unless several passes overtake them;
// then a list too many is made.
func (r *reconciler) judgeNeighLocked(m rtnl.Message) bool {
	n, ok := parseNeigh(m.Body)
	if !ok {
		return false
	}
	if w := r.watched[n.dev]; !w.own {
		return false
	}
	var known, same bool
	if n.family == unix.AF_BRIDGE {
		var have fdbValue
		have, known = r.fdb[fdbKey{n.dev, n.mac}]
		same = have == n.fdbValue()
	} else {
		var mac MAC
		mac, known = r.neighbors[neighKey{n.dev, n.addr}]
		same = mac == n.mac
	}
	switch {
	case m.Type == unix.RTM_DELNEIGH:
		return known
	case known:
		return !same || !isPermanent(n.state)
	default:
		return isPermanent(n.state)
	}
}

func (r *reconciler) judgeRouteLocked(m rtnl.Message) bool {
	k, v, ok := parseRoute(m.Body)
	if !ok {
		return false
	}
	have, known := r.routes[k]
	switch {
	case m.Type == unix.RTM_DELROUTE:
		return known && v.protocol == have.protocol || r.blocked[k]
	case known:
		return v != have
	default:
		return v.protocol == RouteProtocol && (r.watched[v.dev].own || r.scope.inside(k.dst))
	}
}
