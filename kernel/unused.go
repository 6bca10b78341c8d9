package kernel

import (
	"context"
	"time"
)

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

// delCached adds an entry to what is deleted, if the cache has it.
func (w *work[K, V]) delCached(k K) {
	if v, ok := w.cache[k]; ok {
		w.stale = append(w.stale, Entry[K, V]{k, v})
	}
}
