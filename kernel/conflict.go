package kernel

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// putRoutes puts routes and resolves conflicts: a route that is there although
// the cache lacks it is replaced if it is ours to replace, and left alone if it
// is somebody else's. It returns the keys of the latter.
func (p *pass) putRoutes(w *work[RouteKey, RouteValue]) (blocked map[RouteKey]bool) {
	taken := make(map[RouteKey]Change[RouteKey, RouteValue])
	w.put(w.puts, func(c Change[RouteKey, RouteValue], err error) {
		if !c.Exists && errors.Is(err, syscall.EEXIST) {
			taken[c.Key] = c
			return
		}
		p.routeFailed(c, err)
	})
	if len(taken) == 0 {
		return nil
	}
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
			p.routeFailed(c, p.takenError(k, holder))
			blocked[k] = true
			for _, l := range p.r.links {
				if l.Index == holder.Dev {
					p.used[l.Index] = l
				}
			}
		default:
			c.Have, c.Exists = holder, there
			again = append(again, c)
		}
	}
	w.put(again, p.routeFailed)
	return blocked
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
	by := fmt.Sprintf("protocol %d", v.Protocol)
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
	return fmt.Errorf("the route is taken by another (%s); remove it with `ip route del %s metric %d`", by, k.Dst, k.Metric)
}
