package kernel

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"syscall"

	"flannel/kernel/rtnl"

	"golang.org/x/sys/unix"
)

// work is what a pass has to do in one table.
type work[K, V comparable] struct {
	p     *pass
	table table[K, V]
	// memory is what the table should hold; it changes before the table does.
	memory map[K]V
	puts   []change[K, V]
	stale  []entry[K, V]
}

// plan compares what is wanted with what is remembered or has just been
// listed. old is what was remembered before.
func plan[K, V comparable](p *pass, t table[K, V], memory, old map[K]V, want iter.Seq2[K, V]) *work[K, V] {
	w := &work[K, V]{p: p, table: t, memory: memory}
	w.puts, w.stale = diff(want, w.memory)
	if p.stats.Listed && p.primed {
		w.countDrift(old)
	}
	return w
}

// planEntries is plan for the entries of a State, of which before had others.
// While the tables hold exactly what before says, only the part of the list
// that differs is looked at.
func planEntries[E, K, V comparable](p *pass, t table[K, V], memory, old map[K]V,
	want, before []E, entries func([]E, []Answer) iter.Seq2[K, V],
) *work[K, V] {
	if !p.settledBefore {
		return plan(p, t, memory, old, entries(want, p.asked))
	}
	want, before = trim(want, before)
	have := make(map[K]V, len(before))
	for k := range entries(before, nil) {
		if v, ok := memory[k]; ok {
			have[k] = v
		}
	}
	w := &work[K, V]{p: p, table: t, memory: memory}
	w.puts, w.stale = diff(entries(want, nil), have)
	return w
}

// trim cuts off what two lists have in common at the start and at the end.
func trim[E comparable](a, b []E) (restA, restB []E) {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return a, b
}

// countDrift counts what somebody else has done since the last pass.
func (w *work[K, V]) countDrift(old map[K]V) {
	drift := 0
	for _, c := range w.puts {
		if v, ok := old[c.key]; ok && v == c.want {
			drift++
		}
	}
	for _, e := range w.stale {
		if _, ok := old[e.key]; !ok {
			drift++
		}
	}
	if drift > 0 {
		w.p.stats.Drift[w.table.name] += drift
	}
}

// write puts changes and calls failed for each that the kernel refused. What is remembered changes first: an event that shows
// our own write is then no surprise.
func (w *work[K, V]) write(changes []change[K, V], failed func(c change[K, V], err error)) {
	if len(changes) == 0 {
		return
	}
	w.p.lock.Lock()
	for _, c := range changes {
		w.memory[c.key] = c.want
	}
	w.p.lock.Unlock()
	done := len(changes)
	w.table.put(changes, func(i int, err error) {
		c := changes[i]
		done--
		w.p.lock.Lock()
		if c.exists {
			w.memory[c.key] = c.have
		} else {
			delete(w.memory, c.key)
		}
		w.p.lock.Unlock()
		failed(c, err)
	})
	if done > 0 {
		w.p.stats.Put[w.table.name] += done
	}
}

// hold takes out of what is stale the entries that stay for now.
func (w *work[K, V]) hold(stays func(K, V) bool) {
	all := len(w.stale)
	w.stale = slices.DeleteFunc(w.stale, func(e entry[K, V]) bool { return stays(e.key, e.value) })
	w.p.stats.Held += all - len(w.stale)
}

// del deletes what is stale. name names an entry in errors.
func (w *work[K, V]) del(name func(K) string) {
	if len(w.stale) == 0 {
		return
	}
	w.p.lock.Lock()
	for _, e := range w.stale {
		delete(w.memory, e.key)
	}
	w.p.lock.Unlock()
	done := len(w.stale)
	w.table.del(w.stale, func(i int, err error) {
		e := w.stale[i]
		done--
		w.p.lock.Lock()
		w.memory[e.key] = e.value
		w.p.lock.Unlock()
		w.p.failures.add(fmt.Errorf("delete %s: %w", name(e.key), err), both())
	})
	if done > 0 {
		w.p.stats.Deleted[w.table.name] += done
	}
}

// putRoutes puts routes and settles conflicts: a route that is there although
// we do not know it is replaced if it is ours to replace, and left alone if it
// is somebody else's. It returns the keys of the latter.
func (p *pass) putRoutes(w *work[routeKey, routeValue]) (blocked map[routeKey]bool) {
	taken := make(map[routeKey]change[routeKey, routeValue])
	w.write(w.puts, func(c change[routeKey, routeValue], err error) {
		if !c.exists && errors.Is(err, syscall.EEXIST) {
			taken[c.key] = c
			return
		}
		p.routeFailed(c, err)
	})
	if len(taken) == 0 {
		return nil
	}
	// Before the holders are looked at: then nothing that happens to them is missed.
	p.keepWatching(p.alsoBlocked(taken))
	holders, err := p.edge.findRoutes(slices.Collect(maps.Keys(taken)))
	var again []change[routeKey, routeValue]
	blocked = make(map[routeKey]bool)
	for k, c := range taken {
		holder, there := holders[k]
		switch {
		case !there && err != nil:
			p.routeFailed(c, fmt.Errorf("find out who has the route: %w", err))
		case there && !p.mayReplace(k, holder):
			p.routeFailed(c, p.takenError(k, holder))
			blocked[k] = true
			p.use(holder.dev)
		default:
			c.have, c.exists = holder, there
			again = append(again, c)
		}
	}
	w.write(again, p.routeFailed)
	return blocked
}

// alsoBlocked returns the routes that another is in the way of as far as is
// known, and these.
func (p *pass) alsoBlocked(taken map[routeKey]change[routeKey, routeValue]) map[routeKey]bool {
	all := maps.Clone(p.blocked)
	if all == nil {
		all = make(map[routeKey]bool, len(taken))
	}
	for k := range taken {
		all[k] = true
	}
	return all
}

// keepWatching watches the routes that are in the way, and their devices:
// without its device a route ends without an event.
func (p *pass) keepWatching(blocked map[routeKey]bool) {
	if err := errors.Join(p.watchBlocked(blocked), p.watchUsed()); err != nil {
		p.log.Warn("removal of a route in the way is noticed late", "err", err)
	}
}

// use makes the events of a device matter, if it exists.
func (p *pass) use(dev int) {
	for _, l := range p.links {
		if l.index == dev && dev != 0 {
			if p.used == nil {
				p.used = make(map[int]link)
			}
			p.used[dev] = l
		}
	}
}

// mayReplace reports whether a route that is in the way is ours to replace.
func (p *pass) mayReplace(k routeKey, v routeValue) bool {
	return p.ownRoute(k, v) || p.onOwned(v.dev) || p.adoptable(k, v)
}

func (p *pass) takenError(k routeKey, v routeValue) error {
	by := fmt.Sprintf("protocol %d", v.protocol)
	if v.via.IsValid() {
		by += " via " + v.via.String()
	}
	for name, l := range p.links {
		if l.index == v.dev {
			by += " dev " + name
		}
	}
	if v.protocol == unix.RTPROT_KERNEL {
		return fmt.Errorf("the route is taken by a network of this host (%s); one of the two needs another range", by)
	}
	return fmt.Errorf("the route is taken by another (%s); remove it with `ip route del %s metric %d`", by, k.dst, k.metric)
}

// collect lists a table and keeps what keep wants. A dump that the kernel says
// may be incomplete is done again; when that happens each time the last one
// counts, because nothing is deleted that was not seen. room is how many
// entries to make room for at once.
func collect[K, V comparable](t table[K, V], s selection, room int, keep func(K, V) bool) (map[K]V, error) {
	const attempts = 5
	have := make(map[K]V, room)
	for range attempts {
		clear(have)
		err := t.list(s, func(k K, v V) {
			if keep(k, v) {
				have[k] = v
			}
		})
		if err == nil {
			return have, nil
		}
		if !errors.Is(err, rtnl.ErrInterrupted) {
			return nil, fmt.Errorf("list %s: %w", t.name, err)
		}
	}
	return have, nil
}
