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
// bytes; ok is false if they are no miss: a probe of a known neighbor, the
// question for a MAC, a damaged message.
func ParseMiss(body []byte) (m Miss, ok bool) {
	n, ok := rtnl.ParseNeigh(body)
	if !ok || n.State&unix.NUD_INCOMPLETE == 0 || !n.Addr.IsValid() || n.Dev <= 0 || n.Family != family(n.Addr) {
		return Miss{}, false
	}
	return Miss{Index: n.Dev, Addr: n.Addr.Unmap()}, true
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
