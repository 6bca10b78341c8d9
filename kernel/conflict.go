package kernel

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
)

// putRoutes puts routes and resolves conflicts: a route that is there although
// the cache lacks it, or in front of ours, is replaced if it is ours to replace,
// and left alone if it is somebody else's. It returns the keys of the latter.
func (p *pass) putRoutes(w *work[RouteKey, RouteValue]) (blocked map[RouteKey]bool) {
	taken := make(map[RouteKey]Change[RouteKey, RouteValue])
	puts := w.puts
	if behind := p.r.cache.behind(puts); len(behind) > 0 {
		// Of routes with the same key the kernel replaces the first.
		puts = slices.DeleteFunc(slices.Clone(puts), func(c Change[RouteKey, RouteValue]) bool {
			if behind[c.Key] {
				taken[c.Key] = c
			}
			return behind[c.Key]
		})
	}
	var refused map[RouteKey]error
	w.put(puts, func(c Change[RouteKey, RouteValue], err error) {
		switch {
		case !c.Exists && errors.Is(err, syscall.EEXIST):
			taken[c.Key] = c
		case c.Key.Dst.Addr().Is6() && errors.Is(err, syscall.EINVAL):
			if refused == nil {
				refused = make(map[RouteKey]error)
			}
			refused[c.Key] = err
			taken[c.Key] = c
		default:
			p.routeFailed(c, err)
		}
	})
	if len(refused) > 0 {
		p.uncover(taken, refused)
	}
	if len(taken) == 0 {
		return nil
	}
	return p.resolve(w, taken, refused)
}

// resolve looks at the routes that ours could not be put because of, by their
// keys, and returns those that stay.
func (p *pass) resolve(w *work[RouteKey, RouteValue], taken map[RouteKey]Change[RouteKey, RouteValue], refused map[RouteKey]error) (blocked map[RouteKey]bool) {
	// Before the holders are looked at: then nothing that happens to them is missed.
	all := maps.Clone(p.r.cache.blocked)
	if all == nil {
		all = make(map[RouteKey]bool, len(taken))
	}
	for k := range taken {
		all[k] = true
	}
	p.watchBlocked(all)
	holders, err := p.r.backing.FindRoutes(slices.Collect(maps.Keys(taken)))
	var again []Change[RouteKey, RouteValue]
	blocked = make(map[RouteKey]bool)
	for k, c := range taken {
		holder, there := holders[k]
		switch {
		case !there && err != nil:
			p.routeFailed(c, fmt.Errorf("find out who has the route: %w", err))
		case there && !p.mayReplace(k, holder):
			blocked[k] = true
			p.inTheWay(k, holder)
		case k != c.Key:
			p.routeFailed(c, refused[c.Key])
		default:
			c.Have, c.Exists = holder, there
			again = append(again, c)
		}
	}
	w.put(again, p.routeFailed)
	return blocked
}

// uncover finds the routes of others because of which the kernel refused ours: it
// accepts no IPv6 gateway to which a route over another device leads. They take
// the place of ours in what is taken; refusals for other reasons are reported.
func (p *pass) uncover(taken map[RouteKey]Change[RouteKey, RouteValue], refused map[RouteKey]error) {
	for _, k := range p.r.cache.lower() {
		ours := peerKey(k.Dst)
		if c, ok := taken[ours]; ok && refused[ours] != nil {
			delete(taken, ours)
			taken[k] = c
		}
	}
	for k, err := range refused {
		if c, ok := taken[k]; ok {
			delete(taken, k)
			p.routeFailed(c, err)
		}
	}
}

// checkPreceding looks for routes of others that win against ours: those that
// are ours to replace are deleted, the others are reported and added to what
// blocks our routes.
func (p *pass) checkPreceding(w *work[RouteKey, RouteValue], blocked map[RouteKey]bool) map[RouteKey]bool {
	keys := slices.DeleteFunc(p.r.cache.preceding(), func(k RouteKey) bool { return blocked[k] })
	if len(keys) == 0 {
		return blocked
	}
	if blocked == nil {
		blocked = make(map[RouteKey]bool, len(keys))
	}
	for _, k := range keys {
		blocked[k] = true
	}
	// Before they are looked at: then nothing that happens to them is missed.
	p.watchBlocked(maps.Clone(blocked))
	found, err := p.r.backing.FindRoutes(keys)
	var replaced []Entry[RouteKey, RouteValue]
	for _, k := range keys {
		v, there := found[k]
		ours := w.cache[k]
		switch {
		case there && v == ours: // The one in front is gone.
		case there && !p.mayReplace(k, v):
			p.inTheWay(k, v)
			continue
		case there:
			replaced = append(replaced, Entry[RouteKey, RouteValue]{k, v})
		case err != nil:
			p.failures.add(fmt.Errorf("look for a route in the way of %s: %w", k.Dst, err), familyOf(k.Dst.Addr()))
			continue
		}
		delete(blocked, k)
		if !there || v == ours {
			p.r.cache.forget(k)
		}
	}
	p.delUncached(w, replaced)
	return blocked
}

// delUncached deletes routes that the cache does not have, although it may have
// their keys.
func (p *pass) delUncached(w *work[RouteKey, RouteValue], entries []Entry[RouteKey, RouteValue]) {
	if len(entries) == 0 {
		return
	}
	done := len(entries)
	w.table.Delete(entries, func(i int, err error) {
		done--
		p.failures.add(fmt.Errorf("delete %s: %w", entries[i].Key.name(), err), both())
	})
	if done > 0 {
		p.stats.Deleted[w.table.Name] += done
	}
}

// inTheWay reports a route of others that is in the way of ours.
func (p *pass) inTheWay(k RouteKey, v RouteValue) {
	p.routeFailed(Change[RouteKey, RouteValue]{Key: k}, p.takenError(k, v))
	for _, l := range p.r.links {
		if l.Index == v.Dev {
			p.used[l.Index] = l
		}
	}
}

// replaced returns those stale routes to peers that another route of ours to
// the same destination replaces, under another metric: what an earlier version
// or flannel made.
func (p *pass) replaced(w *work[RouteKey, RouteValue]) map[RouteKey]bool {
	if p.hold == (ipfam.Pair[bool]{}) || len(w.stale) == 0 {
		return nil // All of it is deleted anyway.
	}
	wanted := make(map[RouteKey]bool, len(p.want.Routes))
	for k := range entries(p.want.Routes, p.routeEntry) {
		wanted[k] = true
	}
	replaced := make(map[RouteKey]bool)
	for _, e := range w.stale {
		replaced[e.Key] = wanted[peerKey(e.Key.Dst)]
	}
	return replaced
}

// delRoutes deletes what is stale. A route stays while the one that replaces it
// could not be put.
func (p *pass) delRoutes(w *work[RouteKey, RouteValue]) {
	if len(w.stale) == 0 {
		return
	}
	failed := make(map[netip.Prefix]bool)
	for _, c := range w.puts {
		if w.cache[c.Key] != c.Want {
			failed[c.Key.Dst] = true
		}
	}
	w.stale = slices.DeleteFunc(w.stale, func(e Entry[RouteKey, RouteValue]) bool { return failed[e.Key.Dst] })
	w.del(RouteKey.name)
	// The kernel takes a deletion without a metric for one of any metric. If
	// somebody else was faster, ours was deleted.
	var again []Change[RouteKey, RouteValue]
	for _, e := range w.stale {
		k := peerKey(e.Key.Dst)
		if v, ok := w.cache[k]; ok && e.Key.Metric == 0 && e.Value.Protocol == v.Protocol {
			again = append(again, Change[RouteKey, RouteValue]{Key: k, Want: v, Have: v, Exists: true})
		}
	}
	w.table.Put(again, func(i int, err error) { p.routeFailed(again[i], err) })
}

// watchBlocked watches the routes of others that are in the way of ours, and
// their devices: without its device a route ends without an event.
func (p *pass) watchBlocked(routes map[RouteKey]bool) {
	if err := p.r.watchUsed(p.used, routes); err != nil {
		p.r.log.Warn("removal of a route in the way is noticed late", "err", err)
	}
}

// mayReplace reports whether a route that is in the way is ours to replace.
func (p *pass) mayReplace(k RouteKey, v RouteValue) bool {
	return p.r.isOurs(k, v) || hasIndex(p.r.owned, v.Dev) || p.r.adopts(k, v)
}

func (p *pass) takenError(k RouteKey, v RouteValue) error {
	by, tos := fmt.Sprintf("protocol %d", v.Protocol), ""
	if k.TOS != 0 {
		tos = fmt.Sprintf(" tos %#x", k.TOS)
		by += tos
	}
	if v.Via.IsValid() {
		by += " via " + v.Via.String()
	}
	for name, l := range p.r.links {
		if l.Index == v.Dev {
			by += " dev " + name
		}
	}
	if v.Protocol == unix.RTPROT_KERNEL {
		return fmt.Errorf("the route is taken by a network of this host (%s); one of the two needs another range", by)
	}
	return fmt.Errorf("the route is taken by another (%s); remove it with `ip route del %s%s proto %d metric %d`", by, k.Dst, tos, v.Protocol, k.Metric)
}
