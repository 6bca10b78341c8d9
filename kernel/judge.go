package kernel

import (
	"slices"

	"flannel/kernel/rtnl"

	"golang.org/x/sys/unix"
)

// judge compares an event with what is remembered and reports whether the
// kernel may differ from it.
func (r *reconciler) judge(m rtnl.Message, devices deviceReader) (tampered bool) {
	if m.Type == unix.RTM_GETNEIGH {
		return false // a question; see miss
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	if r.isTamperingLocked(m, devices) {
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
		bad = bad || r.isTamperingLocked(m, nil)
	}
	r.unjudged = nil
	return bad
}

func (r *reconciler) isTamperingLocked(m rtnl.Message, devices deviceReader) bool {
	switch m.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return r.judgeLinkLocked(m, devices)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return r.judgeAddrLocked(m)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return r.judgeNeighLocked(m)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return r.judgeRouteLocked(m)
	}
	return false
}

// deviceReader reads what a device is like at present.
type deviceReader interface {
	get(index int) (link, error)
	// TxChecksum reports whether transmit checksum offload is on.
	TxChecksum(name string) (bool, error)
}

// judgeLinkLocked: a link that went down, or away, took routes with it without a
// word, even if it is back already. All else is read from the device, unless
// there is no reader.
func (r *reconciler) judgeLinkLocked(m rtnl.Message, devices deviceReader) bool {
	e, ok := rtnl.ParseLinkEvent(m)
	if !ok {
		return false
	}
	w, ok := r.watched[e.Index]
	switch {
	case !ok:
		return false
	case m.Type == unix.RTM_DELLINK:
		delete(r.watched, e.Index)
		return true
	case w.own && !e.Up:
		return true
	case devices == nil:
		return false
	}
	got, err := devices.get(e.Index)
	if err != nil {
		return true
	}
	if !w.own {
		got.up = e.Up
		return r.judgeUplinkLocked(got, w)
	}
	want := w.link
	want.up = true
	if got != want {
		return true
	}
	if !w.txChecksumOff {
		return false
	}
	on, err := devices.TxChecksum(w.name)
	return err != nil || on
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
	e, ok := rtnl.ParseAddrEvent(m)
	if !ok {
		return false
	}
	k := addrKey{e.Dev, e.Addr}
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
	n, ok := rtnl.ParseNeigh(m.Body)
	if !ok {
		return false
	}
	if w := r.watched[n.Dev]; !w.own {
		return false
	}
	var known, same bool
	if n.Family == unix.AF_BRIDGE {
		var have fdbValue
		have, known = r.fdb[fdbKey{n.Dev, n.MAC}]
		same = have == fdbValueOf(n)
	} else {
		var mac MAC
		mac, known = r.neighbors[neighKey{n.Dev, n.Addr}]
		same = mac == n.MAC
	}
	switch {
	case m.Type == unix.RTM_DELNEIGH:
		return known
	case known:
		return !same || !isPermanent(n.State)
	default:
		return isPermanent(n.State)
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
