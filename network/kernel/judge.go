package kernel

import (
	"net/netip"

	"flannel/network/kernel/rtnl"

	"golang.org/x/sys/unix"
)

// verdict is what an event means for us.
type verdict uint8

const (
	// harmless: ours is as it should be.
	harmless verdict = iota
	// tampered: the kernel may differ from what is remembered.
	tampered
	// missed: the kernel asks for an address.
	missed
)

// judge compares an event with what is remembered. txChecksum tells whether
// transmit checksum offload of a device is on.
func (r *reconciler) judge(m rtnl.Message, txChecksum func(name string) (bool, error)) (verdict, Miss) {
	if m.Type == unix.RTM_GETNEIGH {
		if miss, ok := ParseMiss(m.Body); ok {
			return missed, miss
		}
		return harmless, Miss{}
	}
	bad := false
	switch m.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		bad = r.judgeLink(m, txChecksum)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		bad = r.judgeAddr(m)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		bad = r.judgeNeigh(m)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		bad = r.judgeRoute(m)
	}
	if bad {
		return tampered, Miss{}
	}
	return harmless, Miss{}
}

// judgeLink: a link that went down, or away, took routes with it without a
// word, even if it is back already.
func (r *reconciler) judgeLink(m rtnl.Message, txChecksum func(name string) (bool, error)) bool {
	got, ok := parseLink(m.Body)
	if !ok {
		return false
	}
	r.lock.RLock()
	w, ok := r.watched[got.index]
	r.lock.RUnlock()
	switch {
	case !ok:
		return false
	case m.Type == unix.RTM_DELLINK:
		r.forgetWatched(got.index)
		return true
	case !w.own:
		return r.judgeUplink(got, w)
	case !got.up || got.name != w.name || got.mtu != w.mtu || got.mac != w.mac || got.alias != w.alias:
		return true
	case w.txChecksumOff:
		on, err := txChecksum(w.name)
		return err != nil || on
	}
	return false
}

func (r *reconciler) judgeUplink(got link, w watchedLink) bool {
	if got.up == w.up && got.name == w.name {
		return false
	}
	w.up, w.name = got.up, got.name
	r.lock.Lock()
	defer r.lock.Unlock()
	r.watched[got.index] = w
	return true
}

func (r *reconciler) forgetWatched(index int) {
	r.lock.Lock()
	defer r.lock.Unlock()
	delete(r.watched, index)
}

// judgeAddr: the last address of a device takes the device's routes with it
// without a word.
func (r *reconciler) judgeAddr(m rtnl.Message) bool {
	k, ok := parseAddr(m.Body)
	if !ok {
		return false
	}
	r.lock.RLock()
	defer r.lock.RUnlock()
	w, watched := r.watched[k.dev]
	_, known := r.addrs[k]
	switch {
	case !watched:
		return false
	case m.Type == unix.RTM_DELADDR:
		return known || r.listing || !w.own
	default:
		return w.own && !known && !k.prefix.Addr().IsLinkLocalUnicast()
	}
}

func (r *reconciler) judgeNeigh(m rtnl.Message) bool {
	n, ok := parseNeigh(m.Body)
	if !ok {
		return false
	}
	r.lock.RLock()
	defer r.lock.RUnlock()
	if w := r.watched[n.dev]; !w.own {
		return false
	}
	var known, same bool
	if n.family == unix.AF_BRIDGE {
		var dst netip.Addr
		dst, known = r.fdb[fdbKey{n.dev, n.mac}]
		same = dst == n.addr
	} else {
		var mac MAC
		mac, known = r.neighbors[neighKey{n.dev, n.addr}]
		same = mac == n.mac
	}
	switch {
	case m.Type == unix.RTM_DELNEIGH:
		return known || r.listing
	case known:
		return !same || !isPermanent(n.state)
	default:
		return isPermanent(n.state)
	}
}

func (r *reconciler) judgeRoute(m rtnl.Message) bool {
	k, v, ok := parseRoute(m.Body)
	if !ok {
		return false
	}
	r.lock.RLock()
	defer r.lock.RUnlock()
	have, known := r.routes[k]
	switch {
	case m.Type == unix.RTM_DELROUTE:
		return known && v.protocol == have.protocol || r.listing && v.protocol == RouteProtocol
	case known:
		return v != have
	default:
		return v.protocol == RouteProtocol && (r.watched[v.dev].own || r.scope.inside(k.dst))
	}
}
