package kernel

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Miss is the kernel's question who has an address on a device (an L3 miss).
type Miss struct {
	// Index is that of the device.
	Index int
	Addr  netip.Addr
}

// ParseMiss reads the body of a message of type RTM_GETNEIGH. It accepts any
// bytes; ok is false when they are no miss: a probe of a known neighbour, the
// question for a MAC, a damaged message.
func ParseMiss(body []byte) (m Miss, ok bool) {
	n, ok := parseNeigh(body)
	if !ok || n.state&unix.NUD_INCOMPLETE == 0 || !n.addr.IsValid() || n.dev <= 0 {
		return Miss{}, false
	}
	if n.family != family(n.addr) {
		return Miss{}, false
	}
	return Miss{Index: n.dev, Addr: n.addr.Unmap()}, true
}

// answer puts the entries that an address needs and reports whether a peer has
// it. They are put although they are remembered: the kernel would not ask if
// it had them.
func (r *reconciler) answer(ctx context.Context, m Miss) bool {
	r.pass.Lock()
	defer r.pass.Unlock()
	p := &pass{reconciler: r, ctx: ctx, stats: Stats{Put: map[string]int{}}}
	fdb := &work[fdbKey, fdbValue]{p: p, table: r.edge.fdb, memory: r.fdb}
	neighbors := &work[neighKey, MAC]{p: p, table: r.edge.neighbors, memory: r.neighbors}
	routes := &work[routeKey, routeValue]{p: p, table: r.edge.routes, memory: r.routes}
	if !p.answerFromMemory(m, fdb, neighbors, routes) && !p.answerFromPlan(m, fdb, neighbors, routes) {
		return false
	}
	fdb.write(fdb.puts, p.fdbFailed)
	neighbors.write(neighbors.puts, p.neighborFailed)
	p.putRoutes(routes)
	if err := p.failures.err(); err != nil {
		r.log.Warn("miss not answered", "addr", m.Addr, "err", err)
		r.Invalidate()
	}
	return true
}

// answerFromMemory finds the gateway of a peer that should be in the kernel.
func (p *pass) answerFromMemory(m Miss, fdb *work[fdbKey, fdbValue], neighbors *work[neighKey, MAC], routes *work[routeKey, routeValue]) bool {
	mac, ok := p.neighbors[neighKey{m.Index, m.Addr}]
	if !ok {
		return false
	}
	again(neighbors, neighKey{m.Index, m.Addr}, mac)
	if v, ok := p.fdb[fdbKey{m.Index, mac}]; ok {
		again(fdb, fdbKey{m.Index, mac}, v)
	}
	for k, v := range p.routes {
		if v.dev == m.Index && v.via == m.Addr {
			again(routes, k, v)
		}
	}
	return true
}

// answerFromPlan finds the peer with the most specific subnet that holds the
// address.
func (p *pass) answerFromPlan(m Miss, fdb *work[fdbKey, fdbValue], neighbors *work[neighKey, MAC], routes *work[routeKey, routeValue]) bool {
	var best *Answer
	for i, a := range p.want.Answers {
		if a.Subnet.Contains(m.Addr) && (best == nil || a.Subnet.Bits() > best.Subnet.Bits()) && p.links[a.Route.Dev].index == m.Index {
			best = &p.want.Answers[i]
		}
	}
	if best == nil {
		return false
	}
	again(fdb, fdbKey{m.Index, best.FDB.MAC}, fdbValue{dst: best.FDB.Dst})
	again(neighbors, neighKey{m.Index, best.Neighbor.Addr}, best.Neighbor.MAC)
	k, v := best.Route.entry(m.Index)
	have, exists := p.routes[k]
	routes.puts = append(routes.puts, change[routeKey, routeValue]{key: k, want: v, have: have, exists: exists})
	return true
}

// again adds an entry to what is written, whatever is remembered of it.
func again[K, V comparable](w *work[K, V], k K, v V) {
	have, exists := w.memory[k]
	w.puts = append(w.puts, change[K, V]{key: k, want: v, have: have, exists: exists})
}

// misses answers misses one after the other.
type misses struct {
	*reconciler
	queue chan Miss
	// said is when an unknown address was logged; silent counts those since.
	said   time.Time
	silent int
}

// More misses than this wait for a long pass only in vain: the kernel asks
// again.
const missQueue = 64

// Unknown addresses are logged at most this often.
const missLogPeriod = time.Minute

// add never blocks.
func (q *misses) add(m Miss) {
	select {
	case q.queue <- m:
	default:
	}
}

// run answers until ctx ends.
func (q *misses) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-q.queue:
			if q.answer(ctx, m) {
				q.counters.missesAnswered.Add(1)
				q.log.Debug("miss answered", "addr", m.Addr)
				continue
			}
			q.counters.missesUnknown.Add(1)
			q.sayUnknown(m, time.Now())
		}
	}
}

func (q *misses) sayUnknown(m Miss, now time.Time) {
	if !q.said.IsZero() && now.Sub(q.said) < missLogPeriod {
		q.silent++
		return
	}
	q.log.Info("no lease for an address that was asked for", "addr", m.Addr, "others", q.silent)
	q.said, q.silent = now, 0
}
