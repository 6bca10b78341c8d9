package kernel

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"flannel/kernel/rtnl"
)

// Miss is the kernel's question who has an address on a device (an L3 miss).
type Miss struct {
	// Index is that of the device.
	Index int
	Addr  netip.Addr
}

// ParseMiss reads the body of a message of type RTM_GETNEIGH. It accepts any
// bytes; ok is false if they are no miss: a probe of a known neighbour, the
// question for a MAC, a damaged message.
func ParseMiss(body []byte) (m Miss, ok bool) {
	n, ok := rtnl.ParseNeigh(body)
	if !ok || n.State&unix.NUD_INCOMPLETE == 0 || !n.Addr.IsValid() || n.Dev <= 0 || n.Family != family(n.Addr) {
		return Miss{}, false
	}
	return Miss{Index: n.Dev, Addr: n.Addr.Unmap()}, true
}

// onDemand is what is needed to answer for addresses that have no entries yet.
type onDemand struct {
	// peers are in the order of their subnets.
	peers []OnDemandPeer
	// blackholes are the routes that drop what no lease has, with the time of
	// their making. They are put when the kernel asks for an address there, so
	// that a scan costs one question per hole in the leases and not a neighbour
	// entry per address.
	blackholes map[RouteKey]time.Time
}

const (
	// blackholeLife is how long such a route stays, up to the next pass.
	blackholeLife = time.Minute
	// maxBlackholes bounds what a scan can make us put.
	maxBlackholes = 4096
	// onDemandMetric lets any other route to the same destination win.
	onDemandMetric = 4096
)

func (s State) hasOnDemand() bool { return len(s.OnDemandPeers)+len(s.CatchAllRoutes) > 0 }

// updateOnDemand prepares to answer for the plan of this pass.
func (p *pass) updateOnDemand(now time.Time) {
	d := &p.r.onDemand
	if slices.Equal(p.want.OnDemandPeers, p.before.OnDemandPeers) && slices.Equal(p.want.CatchAllRoutes, p.before.CatchAllRoutes) {
		for k, made := range d.blackholes {
			if now.Sub(made) > blackholeLife {
				delete(d.blackholes, k)
			}
		}
		return
	}
	d.peers = slices.Clone(p.want.OnDemandPeers)
	slices.SortFunc(d.peers, func(a, b OnDemandPeer) int { return a.Subnet.Addr().Compare(b.Subnet.Addr()) })
	// What a blackhole covers may have a lease.
	d.blackholes = map[RouteKey]time.Time{}
}

// addInstalled adds to what is wanted the entries of the on-demand peers of
// which the tables hold at least one, and the blackholes. The three entries of a
// peer belong together: while one is there the kernel does not always ask for
// the others.
func (p *pass) addInstalled() {
	if !p.want.hasOnDemand() {
		return
	}
	d, t, want := &p.r.onDemand, &p.r.cache.tables, &p.want
	fdb, neighbors, routes := slices.Clip(want.FDB), slices.Clip(want.Neighbors), slices.Clip(want.Routes)
	for _, peer := range want.OnDemandPeers {
		e, ok := p.peerEntries(peer)
		if !ok {
			continue
		}
		_, hasFDB := t.fdb[e.fdb.Key]
		_, hasNeighbor := t.neighbors[e.neighbor.Key]
		if _, hasRoute := t.routes[e.route.Key]; hasFDB || hasNeighbor || hasRoute {
			fdb, neighbors, routes = append(fdb, peer.FDB), append(neighbors, peer.Neighbor), append(routes, peer.Route)
		}
	}
	for k := range d.blackholes {
		if _, there := t.routes[k]; !there {
			delete(d.blackholes, k)
			continue
		}
		routes = append(routes, Route{Dst: k.Dst, Blackhole: true, Metric: onDemandMetric})
	}
	want.FDB, want.Neighbors, want.Routes = fdb, neighbors, routes
}

// peerEntries are the three entries of an on-demand peer.
type peerEntries struct {
	fdb      Entry[FDBKey, FDBValue]
	neighbor Entry[NeighborKey, MAC]
	route    Entry[RouteKey, RouteValue]
}

func (p *pass) peerEntries(peer OnDemandPeer) (e peerEntries, ok bool) {
	dev, ok := p.dev(peer.Route.Dev)
	e.fdb = Entry[FDBKey, FDBValue]{FDBKey{dev, peer.FDB.MAC}, FDBValue{Dst: peer.FDB.Dst}}
	e.neighbor = Entry[NeighborKey, MAC]{NeighborKey{dev, peer.Neighbor.Addr}, peer.Neighbor.MAC}
	e.route.Key, e.route.Value = peer.Route.Entry(dev)
	return e, ok
}

// at returns the position of the first peer whose subnet begins after a.
func (d *onDemand) at(a netip.Addr) int {
	i, _ := slices.BinarySearchFunc(d.peers, a, func(e OnDemandPeer, a netip.Addr) int {
		if e.Subnet.Addr().Compare(a) <= 0 {
			return -1
		}
		return 1
	})
	return i
}

// find returns the peer that has an address, or nil.
func (d *onDemand) find(a netip.Addr) *OnDemandPeer {
	if i := d.at(a) - 1; i >= 0 && d.peers[i].Subnet.Contains(a) {
		return &d.peers[i]
	}
	return nil
}

// unleased returns the largest part of the network around an address that
// neither a lease nor this node's subnet overlaps.
func (d *onDemand) unleased(c CatchAllRoute, a netip.Addr) (netip.Prefix, bool) {
	i := d.at(a)
	for bits := c.Network.Bits() + 1; bits <= a.BitLen(); bits++ {
		g, _ := a.Prefix(bits)
		free := !g.Overlaps(c.Own) && (i == 0 || !g.Overlaps(d.peers[i-1].Subnet)) &&
			(i == len(d.peers) || !g.Overlaps(d.peers[i].Subnet))
		if free {
			return g, true
		}
	}
	return netip.Prefix{}, false
}

// newWork is work in the tables of entries that serve peers, with nothing to do.
func (p *pass) newWork() *tableWork {
	b, t := &p.r.backing, &p.r.cache.tables
	return &tableWork{
		fdb:       &work[FDBKey, FDBValue]{p: p, table: b.FDB, cache: t.fdb},
		neighbors: &work[NeighborKey, MAC]{p: p, table: b.Neighbors, cache: t.neighbors},
		routes:    &work[RouteKey, RouteValue]{p: p, table: b.Routes, cache: t.routes},
	}
}

// answer puts the entries that some addresses need and counts those that a
// peer has, and the others; it returns the last of these. What should be in the
// kernel is put although the cache has it: the kernel would not ask if it were
// there.
func (r *Reconciler) answer(ctx context.Context, list []Miss) (answered, unknown int, last Miss) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.newPass(ctx, r.applied)
	w := p.newWork()
	slices.SortFunc(list, func(a, b Miss) int { return cmp.Or(cmp.Compare(a.Index, b.Index), a.Addr.Compare(b.Addr)) })
	for _, m := range slices.Compact(list) {
		if p.restore(m, w) || p.install(m, w) {
			answered++
			continue
		}
		p.block(m, w)
		unknown++
		last = m
	}
	w.fdb.put(w.fdb.puts, p.fdbFailed)
	w.neighbors.put(w.neighbors.puts, p.neighborFailed)
	p.putRoutes(w.routes)
	if len(p.waiting) > 0 {
		r.backing.Release(p.waiting)
	}
	if err := p.failures.err(); err != nil {
		r.log.Warn("miss not answered", "addr", list[0].Addr, "err", err)
		r.Invalidate()
	}
	return answered, unknown, last
}

// restore puts the entries of a gateway that should be in the kernel.
func (p *pass) restore(m Miss, w *tableWork) bool {
	t := &p.r.cache.tables
	gateway := NeighborKey{m.Index, m.Addr}
	mac, ok := t.neighbors[gateway]
	if !ok {
		return false
	}
	w.neighbors.putAgain(gateway, mac)
	if v, ok := t.fdb[FDBKey{m.Index, mac}]; ok {
		w.fdb.putAgain(FDBKey{m.Index, mac}, v)
	}
	for k, v := range t.routes {
		if v.Dev == m.Index && v.Via == m.Addr {
			w.routes.putAgain(k, v)
		}
	}
	return true
}

// install puts the entries of the on-demand peer that has an address, if one
// has it, and notes that packets wait.
func (p *pass) install(m Miss, w *tableWork) bool {
	peer := p.r.onDemand.find(m.Addr)
	if peer == nil || p.r.links[peer.Route.Dev].Index != m.Index {
		return false
	}
	e, _ := p.peerEntries(*peer)
	t := &p.r.cache.tables
	fdb, hasFDB := t.fdb[e.fdb.Key]
	mac, hasNeighbor := t.neighbors[e.neighbor.Key]
	route, hasRoute := t.routes[e.route.Key]
	installed := hasFDB && hasNeighbor && hasRoute && fdb == e.fdb.Value && mac == e.neighbor.Value && route == e.route.Value
	planned := slices.ContainsFunc(w.routes.puts, func(c Change[RouteKey, RouteValue]) bool { return c.Key == e.route.Key })
	if !installed && !planned {
		w.fdb.putAgain(e.fdb.Key, e.fdb.Value)
		w.neighbors.putAgain(e.neighbor.Key, e.neighbor.Value)
		w.routes.putAgain(e.route.Key, e.route.Value)
		p.r.installed(peer.Subnet)
	}
	if m.Addr != peer.Neighbor.Addr {
		p.waiting = append(p.waiting, Waiting{NeighborKey{m.Index, m.Addr}, peer.Neighbor.MAC})
	}
	return true
}

// block puts a blackhole route around an address that no lease has, and drops
// the packets that wait for it.
func (p *pass) block(m Miss, w *tableWork) {
	i := slices.IndexFunc(p.want.CatchAllRoutes, func(c CatchAllRoute) bool {
		return p.r.links[c.Dev].Index == m.Index && c.Network.Contains(m.Addr)
	})
	if i < 0 {
		return
	}
	p.waiting = append(p.waiting, Waiting{NeighborKey{m.Index, m.Addr}, MAC{}})
	d := &p.r.onDemand
	dst, ok := d.unleased(p.want.CatchAllRoutes[i], m.Addr)
	if !ok || len(d.blackholes) >= maxBlackholes {
		return
	}
	k, v := Route{Dst: dst, Blackhole: true, Metric: onDemandMetric}.Entry(0)
	if _, there := d.blackholes[k]; !there {
		d.blackholes[k] = time.Now()
		w.routes.putAgain(k, v)
	}
}

// putAgain adds an entry to what is put, whether or not the cache has it.
func (w *work[K, V]) putAgain(k K, v V) {
	have, exists := w.cache[k]
	w.puts = append(w.puts, Change[K, V]{Key: k, Want: v, Have: have, Exists: exists})
}

// delCached adds an entry to what is deleted, if the cache has it.
func (w *work[K, V]) delCached(k K) {
	if v, ok := w.cache[k]; ok {
		w.stale = append(w.stale, Entry[K, V]{k, v})
	}
}

// expireUnused looks now and then for on-demand peers that nobody talks to.
func (r *Reconciler) expireUnused(ctx context.Context) {
	tick := time.NewTicker(max(r.unused/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.expire(ctx)
		}
	}
}

// expire removes the entries of on-demand peers that nobody has used for a
// while: the kernel notes when an FDB entry has last sent a packet.
func (r *Reconciler) expire(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.applied.CatchAllRoutes) == 0 || r.mode.Load() != verified {
		return
	}
	p := r.newPass(ctx, r.applied)
	w := p.newWork()
	idle := map[FDBKey]bool{}
	for _, c := range r.applied.CatchAllRoutes {
		l, ok := r.links[c.Dev]
		if !ok {
			continue
		}
		err := r.backing.FDBAges(l.Index, func(k FDBKey, age time.Duration) {
			if age > r.unused {
				idle[k] = true
			}
		})
		if err != nil {
			r.log.Debug("ages of FDB entries not read", "err", err)
			return
		}
	}
	for _, peer := range r.onDemand.peers {
		if e, _ := p.peerEntries(peer); idle[e.fdb.Key] {
			w.fdb.delCached(e.fdb.Key)
			w.neighbors.delCached(e.neighbor.Key)
			w.routes.delCached(e.route.Key)
		}
	}
	w.routes.del(RouteKey.name)
	w.neighbors.del(NeighborKey.name)
	w.fdb.del(FDBKey.name)
	if err := p.failures.err(); err != nil {
		r.log.Warn("unused entries not removed", "err", err)
		r.Invalidate()
	}
	if n := p.stats.Deleted[TableRoutes]; n > 0 {
		r.log.Debug("peers without traffic removed", "peers", n)
	}
}

// misses answers misses one after the other.
type misses struct {
	r     *Reconciler
	queue chan Miss
	// logged is when an unknown address was logged; unlogged counts those since.
	logged   time.Time
	unlogged int
}

const (
	// More misses than this wait for a long pass only in vain: the kernel asks
	// again.
	missQueue = 1024
	// Unknown addresses are logged at most this often.
	missLogPeriod = time.Minute
)

// add never blocks.
func (q *misses) add(m Miss) {
	select {
	case q.queue <- m:
	default:
	}
}

// run answers until ctx ends.
func (q *misses) run(ctx context.Context) {
	var list []Miss
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-q.queue:
			list = append(list[:0], m)
		}
		for len(list) < missQueue && len(q.queue) > 0 {
			list = append(list, <-q.queue)
		}
		answered, unknown, last := q.r.answer(ctx, list)
		q.r.counters.missesAnswered.Add(uint64(answered))
		q.r.counters.missesUnknown.Add(uint64(unknown))
		q.r.log.Debug("misses answered", "answered", answered, "unknown", unknown)
		if unknown > 0 {
			q.logUnknown(last, unknown, time.Now())
		}
	}
}

func (q *misses) logUnknown(m Miss, n int, now time.Time) {
	if !q.logged.IsZero() && now.Sub(q.logged) < missLogPeriod {
		q.unlogged += n
		return
	}
	q.r.log.Info("no lease for an address that was asked for", "addr", m.Addr, "others", q.unlogged+n-1)
	q.logged, q.unlogged = now, 0
}
