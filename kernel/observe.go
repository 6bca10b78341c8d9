package kernel

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"flannel/kernel/rtnl"
)

// cache is what the tables should hold: what was listed, changed by what was
// written since. Events are compared with it, so it changes before the kernel
// does.
//
// Locking: mu guards every field. Only the holder of Reconciler.mu changes the
// maps of tables, and blocked, and takes mu for it; that goroutine alone may
// read them without mu. The goroutines that receive events take mu.
type cache struct {
	mu     sync.Mutex
	tables tables
	// watched are the devices whose events matter, by index.
	watched map[int]watchedLink
	// others are the routes of others that win against ours, or would if there
	// were one, as listed and as heard of since. Some may be gone again.
	others map[RouteKey]RouteValue
	// blocked are the routes of others that are in the way of ours. The map
	// itself does not change.
	blocked map[RouteKey]bool
	// recorded are the events that came while the tables were listed; nil
	// while they are not. What an event is about may have been listed before it
	// was changed, so it is compared again with the new tables.
	recorded []rtnl.Message
}

// tables are the contents of the four tables of entries.
type tables struct {
	addrs     map[AddrKey]struct{}
	fdb       map[FDBKey]FDBValue
	neighbors map[NeighborKey]MAC
	routes    map[RouteKey]RouteValue
}

// maxRecorded bounds the events that are recorded.
const maxRecorded = 4096

// watchedLink is a device whose events matter.
type watchedLink struct {
	link Link
	// ours means that the device is; of any other only its being up matters.
	ours          bool
	txChecksumOff bool
}

// newCache knows no entries. A miss may add some before anything is listed.
func newCache() cache {
	return cache{watched: map[int]watchedLink{}, others: map[RouteKey]RouteValue{}, tables: tables{
		addrs: map[AddrKey]struct{}{}, fdb: map[FDBKey]FDBValue{}, neighbors: map[NeighborKey]MAC{}, routes: map[RouteKey]RouteValue{},
	}}
}

// recordEvents begins or ends the recording of events.
func (c *cache) recordEvents(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recorded = nil
	if on {
		c.recorded = []rtnl.Message{}
	}
}

// replaceCache replaces the cache by what was listed. It reports whether the
// events recorded meanwhile show that the list is out of date already.
func (r *Reconciler) replaceCache(t tables, others map[RouteKey]RouteValue) (outdated bool) {
	c := &r.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	recorded := c.recorded
	c.tables, c.others, c.recorded = t, others, nil
	outdated = len(recorded) >= maxRecorded
	for _, m := range recorded {
		outdated = outdated || r.isTamperingLocked(m, nil)
	}
	return outdated
}

// watch changes which events matter, and tells the backing if more do, or
// others: it is told before anybody relies on them.
func (r *Reconciler) watch(change func(c *cache)) error {
	c := &r.cache
	c.mu.Lock()
	change(c)
	s := Subscription{Devices: slices.Sorted(maps.Keys(c.watched)), Removals: len(c.blocked) > 0}
	c.mu.Unlock()
	if slices.Equal(s.Devices, r.subscribed.Devices) && s.Removals == r.subscribed.Removals {
		return nil
	}
	if err := r.backing.Watch(s); err != nil {
		return err
	}
	r.subscribed = s
	return nil
}

// watchOwned makes the events of our devices matter. It reports whether there
// are more of them than before: what happened to these before was not seen.
func (p *pass) watchOwned() (more bool, err error) {
	err = p.r.watch(func(c *cache) {
		for _, l := range p.r.owned {
			if c.watched[l.Index].ours {
				continue
			}
			i := slices.IndexFunc(p.want.Devices, func(d Device) bool { return d.Name == l.Name })
			c.watched[l.Index] = watchedLink{link: l, ours: true, txChecksumOff: p.want.Devices[i].TxChecksumOff}
			more = true
		}
	})
	return more, err
}

// watchUsed makes the events of the devices matter that routes lead over, and
// the removal of these routes of others, which are in the way of ours.
func (r *Reconciler) watchUsed(used map[int]Link, blocked map[RouteKey]bool) error {
	return r.watch(func(c *cache) {
		c.blocked = blocked
		for index, l := range used {
			if _, ok := c.watched[index]; !ok {
				l.Up = true // If it is not, the next event shows it.
				c.watched[index] = watchedLink{link: l}
			}
		}
	})
}

// expectLink notes what our device should be before it is so.
func (r *Reconciler) expectLink(d Device, l Link) {
	r.cache.mu.Lock()
	defer r.cache.mu.Unlock()
	if r.cache.watched[l.Index].ours {
		r.cache.watched[l.Index] = watchedLink{link: l, ours: true, txChecksumOff: d.TxChecksumOff}
	}
}

// forgetLink makes the events of a device no longer matter.
func (r *Reconciler) forgetLink(index int) {
	r.cache.mu.Lock()
	defer r.cache.mu.Unlock()
	delete(r.cache.watched, index)
	delete(r.prepared, index)
}

// isTampering compares an event with the cache and reports whether the kernel
// may differ from it.
func (r *Reconciler) isTampering(m rtnl.Message) bool {
	if m.Type == unix.RTM_GETNEIGH {
		return false // a question; see miss
	}
	c := &r.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.isTamperingLocked(m, r.backing.Links) {
		return true
	}
	if c.recorded != nil && len(c.recorded) < maxRecorded {
		m.Body = slices.Clone(m.Body)
		c.recorded = append(c.recorded, m)
	}
	return false
}

func (r *Reconciler) isTamperingLocked(m rtnl.Message, links Links) bool {
	switch m.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return r.cache.linkTamperedLocked(m, links)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return r.cache.addrTamperedLocked(m)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return r.cache.neighTamperedLocked(m)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return r.cache.routeTamperedLocked(m, r.scope)
	}
	return false
}

// A link that went down, or away, took routes with it without an event of
// their own, even if it is back already. All else is read from the device,
// unless links is nil.
func (c *cache) linkTamperedLocked(m rtnl.Message, links Links) bool {
	e, ok := rtnl.ParseLinkEvent(m)
	w, watched := c.watched[e.Index]
	switch {
	case !ok || !watched:
		return false
	case m.Type == unix.RTM_DELLINK:
		delete(c.watched, e.Index)
		return true
	case w.ours && !e.Up:
		return true
	case links == nil:
		return false
	}
	got, err := links.Get(e.Index)
	if err != nil {
		return true
	}
	if !w.ours {
		changed := e.Up != w.link.Up || got.Name != w.link.Name
		w.link.Up, w.link.Name = e.Up, got.Name
		c.watched[e.Index] = w
		return changed
	}
	want := w.link
	want.Up = true
	if got != want {
		return true
	}
	if !w.txChecksumOff {
		return false
	}
	on, err := links.TxChecksum(w.link.Name)
	return err != nil || on
}

// The last address of a device takes the device's routes with it without an
// event of their own.
func (c *cache) addrTamperedLocked(m rtnl.Message) bool {
	e, ok := rtnl.ParseAddrEvent(m)
	if !ok {
		return false
	}
	k := AddrKey{e.Dev, e.Addr}
	w, watched := c.watched[k.Dev]
	_, known := c.tables.addrs[k]
	switch {
	case !watched:
		return false
	case m.Type == unix.RTM_DELADDR:
		return known || !w.ours
	default:
		return w.ours && !known && !k.Prefix.Addr().IsLinkLocalUnicast()
	}
}

// FDB events do not show who caused them. Those of our own writes agree with the
// cache unless several passes overtake them; then the tables are listed once
// too often.
func (c *cache) neighTamperedLocked(m rtnl.Message) bool {
	n, ok := rtnl.ParseNeigh(m.Body)
	if !ok || !c.watched[n.Dev].ours {
		return false
	}
	var known, same bool
	if n.Family == unix.AF_BRIDGE {
		var have FDBValue
		have, known = c.tables.fdb[FDBKey{n.Dev, n.MAC}]
		same = have == fdbValueOf(n)
	} else {
		var mac MAC
		mac, known = c.tables.neighbors[NeighborKey{n.Dev, n.Addr}]
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

func (c *cache) routeTamperedLocked(m rtnl.Message, scope Scope) bool {
	k, v, ok := parseRoute(m.Body)
	if !ok {
		return false
	}
	have, known := c.tables.routes[k]
	switch {
	case m.Type == unix.RTM_DELROUTE:
		return known && v.Protocol == have.Protocol || c.blocked[k]
	case known:
		return v != have
	case v.Protocol == RouteProtocol:
		return c.watched[v.Dev].ours || scope.inside(k.Dst)
	case !scope.mayPrecede(k):
		return false
	}
	seen, listed := c.others[k]
	c.others[k] = v
	return c.precedesLocked(k) && (!listed || seen != v)
}

// precedesLocked reports whether there is a route of ours that one of others
// with this key wins against.
func (c *cache) precedesLocked(k RouteKey) bool {
	_, ok := c.tables.routes[peerKey(k.Dst)]
	return ok
}

// preceding returns the routes of others that win, or won, against ours.
func (c *cache) preceding() (keys []RouteKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.others {
		if c.precedesLocked(k) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b RouteKey) int {
		return cmp.Or(a.Dst.Compare(b.Dst), cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.TOS, b.TOS))
	})
	return keys
}

// lower returns the routes of others that have a lower metric than one to a peer.
func (c *cache) lower() (keys []RouteKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.others {
		if k.Metric < peerKey(k.Dst).Metric {
			keys = append(keys, k)
		}
	}
	return keys
}

// behind returns the keys of those routes of ours to be changed that have one of
// others in front of them.
func (c *cache) behind(puts []Change[RouteKey, RouteValue]) map[RouteKey]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.others) == 0 {
		return nil
	}
	behind := make(map[RouteKey]bool)
	for i := range puts {
		if _, ok := c.others[puts[i].Key]; ok && puts[i].Exists {
			behind[puts[i].Key] = true
		}
	}
	return behind
}

// forget forgets a route of others.
func (c *cache) forget(k RouteKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.others, k)
}

// miss returns what address the kernel asks for on a device of ours.
func (r *Reconciler) miss(m rtnl.Message) (Miss, bool) {
	if m.Type != unix.RTM_GETNEIGH {
		return Miss{}, false
	}
	miss, ok := ParseMiss(m.Body)
	if !ok {
		return miss, false
	}
	r.cache.mu.Lock()
	defer r.cache.mu.Unlock()
	return miss, r.cache.watched[miss.Index].ours
}
