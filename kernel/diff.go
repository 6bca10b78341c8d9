package kernel

import (
	"errors"
	"fmt"
	"iter"
	"slices"

	"flannel/internal/ends"
	"flannel/kernel/rtnl"
)

// work is what a pass has to do in one table.
type work[K, V comparable] struct {
	p     *pass
	table Table[K, V]
	// cache is what the table should hold; it changes before the table does.
	cache map[K]V
	puts  []Change[K, V]
	stale []Entry[K, V]
}

// compare compares what is wanted with the cache, which may just have been listed.
// old is what the cache held before that. While the tables hold exactly what
// before holds, only the part that differs from it is compared.
func compare[E, K, V comparable](p *pass, t Table[K, V], cache, old map[K]V, want, before []E, convert func(E) (K, V, bool)) *work[K, V] {
	w := &work[K, V]{p: p, table: t, cache: cache}
	have := cache
	if p.incremental {
		want, before = ends.Trim(want, before)
		have = make(map[K]V, len(before))
		for k := range entries(before, convert) {
			if v, ok := cache[k]; ok {
				have[k] = v
			}
		}
	}
	w.puts, w.stale = diff(entries(want, convert), have, len(want))
	if p.stats.Listed && p.mode != unlisted {
		w.countDrift(old)
	}
	return w
}

// entries visits those entries of a State whose device exists, as entries of
// the kernel's table.
func entries[E, K, V any](list []E, convert func(E) (K, V, bool)) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, e := range list {
			if k, v, ok := convert(e); ok && !yield(k, v) {
				return
			}
		}
	}
}

// diff compares what is wanted with what is there. want must yield the same
// entries each time it is run, at most this many, and no key twice.
func diff[K, V comparable](want iter.Seq2[K, V], have map[K]V, most int) (put []Change[K, V], stale []Entry[K, V]) {
	// A first pass puts thousands: without room they are copied again and again.
	put = make([]Change[K, V], 0, max(0, most-len(have)))
	found := 0
	for k, v := range want {
		old, exists := have[k]
		if exists {
			found++
		}
		if !exists || old != v {
			put = append(put, Change[K, V]{Key: k, Want: v, Have: old, Exists: exists})
		}
	}
	if found == len(have) {
		return put, nil
	}
	wanted := make(map[K]struct{}, found)
	for k := range want {
		wanted[k] = struct{}{}
	}
	for k, v := range have {
		if _, ok := wanted[k]; !ok {
			stale = append(stale, Entry[K, V]{k, v})
		}
	}
	return put, stale
}

// countDrift counts what somebody else has done since the last pass.
func (w *work[K, V]) countDrift(old map[K]V) {
	drift := 0
	for _, c := range w.puts {
		if v, ok := old[c.Key]; ok && v == c.Want {
			drift++
		}
	}
	for _, e := range w.stale {
		if _, ok := old[e.Key]; !ok {
			drift++
		}
	}
	if drift > 0 {
		w.p.stats.Drift[w.table.Name] += drift
	}
}

// hold takes out of what is stale the entries that stay for now.
func (w *work[K, V]) hold(stays func(K, V) bool) {
	all := len(w.stale)
	w.stale = slices.DeleteFunc(w.stale, func(e Entry[K, V]) bool { return stays(e.Key, e.Value) })
	w.p.stats.Held += all - len(w.stale)
}

// put writes changes and calls failed for each that the kernel refused. The
// cache changes first: an event that shows our own write is then no surprise.
func (w *work[K, V]) put(changes []Change[K, V], failed func(c Change[K, V], err error)) {
	if len(changes) == 0 {
		return
	}
	cache := &w.p.r.cache
	cache.mu.Lock()
	for _, c := range changes {
		w.cache[c.Key] = c.Want
	}
	cache.mu.Unlock()
	done := len(changes)
	w.table.Put(changes, func(i int, err error) {
		c := changes[i]
		done--
		cache.mu.Lock()
		if c.Exists {
			w.cache[c.Key] = c.Have
		} else {
			delete(w.cache, c.Key)
		}
		cache.mu.Unlock()
		failed(c, err)
	})
	if done > 0 {
		w.p.stats.Put[w.table.Name] += done
	}
}

// del deletes what is stale. name names an entry in errors.
func (w *work[K, V]) del(name func(K) string) {
	if len(w.stale) == 0 {
		return
	}
	cache := &w.p.r.cache
	cache.mu.Lock()
	for _, e := range w.stale {
		delete(w.cache, e.Key)
	}
	cache.mu.Unlock()
	done := len(w.stale)
	w.table.Delete(w.stale, func(i int, err error) {
		e := w.stale[i]
		done--
		cache.mu.Lock()
		w.cache[e.Key] = e.Value
		cache.mu.Unlock()
		w.p.failures.add(fmt.Errorf("delete %s: %w", name(e.Key), err), both())
	})
	if done > 0 {
		w.p.stats.Deleted[w.table.Name] += done
	}
}

// collect lists a table and keeps what keep wants. room is the number of entries
// to make room for at once.
func collect[K, V comparable](t Table[K, V], s Selection, room int, keep func(K, V) bool) (map[K]V, error) {
	have := make(map[K]V, room)
	err := t.listAgain(func() error {
		clear(have)
		return t.List(s, func(k K, v V) {
			if keep(k, v) {
				have[k] = v
			}
		})
	})
	return have, err
}

// listAgain repeats a dump that the kernel reports may be incomplete; if that
// happens each time the last one counts, because nothing is deleted that was not
// seen.
func (t Table[K, V]) listAgain(list func() error) error {
	const attempts = 5
	for range attempts {
		err := list()
		if err == nil {
			return nil
		}
		if !errors.Is(err, rtnl.ErrInterrupted) {
			return fmt.Errorf("list %s: %w", t.Name, err)
		}
	}
	return nil
}
