package kernel

import (
	"context"
	"iter"
)

// Add puts the entries of peers that have just come, so that these need not
// wait until everything is planned again. It decides nothing: it writes only
// while the tables hold exactly what the last Apply was asked for, only what
// has no entry with the same key, and no devices. The next Apply must follow
// at once. It counts what was added, mends what failed, and deletes what it
// does not want.
func (r *reconciler) Add(ctx context.Context, some State) {
	r.pass.Lock()
	defer r.pass.Unlock()
	p := r.newPass(ctx)
	p.want = r.want
	if !r.settled || r.unresolved || r.unsure.Load() || p.onDemand() || ctx.Err() != nil {
		return
	}
	fdb, free1 := additions(p, p.edge.fdb, p.fdb, p.fdbEntries(some.FDB, nil))
	neighbors, free2 := additions(p, p.edge.neighbors, p.neighbors, p.neighborEntries(some.Neighbors, nil))
	routes, free3 := additions(p, p.edge.routes, p.routes, p.routeEntries(some.Routes, nil))
	if !free1 || !free2 || !free3 || len(p.missing) > 0 || !p.watchesUsed() {
		return
	}
	failed := func() { r.settled = false }
	fdb.write(fdb.puts, func(change[fdbKey, fdbValue], error) { failed() })
	neighbors.write(neighbors.puts, func(change[neighKey, MAC], error) { failed() })
	routes.write(routes.puts, func(change[routeKey, routeValue], error) { failed() })
	r.early.FDB = append(r.early.FDB, some.FDB...)
	r.early.Neighbors = append(r.early.Neighbors, some.Neighbors...)
	r.early.Routes = append(r.early.Routes, some.Routes...)
	for table, n := range p.stats.Put {
		r.earlyPut[table] += n
	}
}

// additions is the work of creating entries; it reports false when there is an
// entry with one of their keys.
func additions[K, V comparable](p *pass, t table[K, V], memory map[K]V, want iter.Seq2[K, V]) (*work[K, V], bool) {
	w := &work[K, V]{p: p, table: t, memory: memory}
	for k, v := range want {
		if _, taken := memory[k]; taken {
			return nil, false
		}
		w.puts = append(w.puts, change[K, V]{key: k, want: v})
	}
	return w, true
}

// watchesUsed reports whether the events of all devices matter already that
// routes of this pass lead over.
func (p *pass) watchesUsed() bool {
	p.lock.Lock()
	defer p.lock.Unlock()
	for index := range p.used {
		if _, ok := p.watched[index]; !ok {
			return false
		}
	}
	return true
}
