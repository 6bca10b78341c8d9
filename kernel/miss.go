package kernel

import (
	"context"
	"net/netip"
	"time"

	"flannel/kernel/rtnl"

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
	n, ok := rtnl.ParseNeigh(body)
	if !ok || n.State&unix.NUD_INCOMPLETE == 0 || !n.Addr.IsValid() || n.Dev <= 0 {
		return Miss{}, false
	}
	if n.Family != family(n.Addr) {
		return Miss{}, false
	}
	return Miss{Index: n.Dev, Addr: n.Addr.Unmap()}, true
}

// answer puts the entries that some addresses need and counts those that a
// peer has, and the others; it returns the last of these. What should be in the
// kernel is put although it is remembered: the kernel would not ask if it had it.
func (r *reconciler) answer(ctx context.Context, list []Miss) (answered, unknown int, last Miss) {
	r.pass.Lock()
	defer r.pass.Unlock()
	p := r.newPass(ctx)
	w := newMissWork(p)
	seen := make(map[Miss]bool, len(list))
	for _, m := range list {
		if seen[m] {
			continue
		}
		seen[m] = true
		if p.answerFromMemory(m, w) || p.answerOnDemand(m, w) {
			answered++
			continue
		}
		unknown++
		last = m
	}
	w.write(p)
	if err := p.failures.err(); err != nil {
		r.log.Warn("miss not answered", "addr", list[0].Addr, "err", err)
		r.Invalidate()
	}
	return answered, unknown, last
}

// answerFromMemory finds the gateway of a peer that should be in the kernel.
func (p *pass) answerFromMemory(m Miss, w *missWork) bool {
	mac, ok := p.neighbors[neighKey{m.Index, m.Addr}]
	if !ok {
		return false
	}
	again(w.neighbors, neighKey{m.Index, m.Addr}, mac)
	if v, ok := p.fdb[fdbKey{m.Index, mac}]; ok {
		again(w.fdb, fdbKey{m.Index, mac}, v)
	}
	for k, v := range p.routes {
		if v.dev == m.Index && v.via == m.Addr {
			again(w.routes, k, v)
		}
	}
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
const missQueue = 1024

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
	var list []Miss
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-q.queue:
			list = q.more(append(list[:0], m))
			answered, unknown, last := q.answer(ctx, list)
			q.counters.missesAnswered.Add(uint64(answered))
			q.counters.missesUnknown.Add(uint64(unknown))
			q.log.Debug("misses answered", "answered", answered, "unknown", unknown)
			if unknown > 0 {
				q.sayUnknown(last, unknown, time.Now())
			}
		}
	}
}

// more takes what else is in the queue.
func (q *misses) more(list []Miss) []Miss {
	for len(list) < missQueue {
		select {
		case m := <-q.queue:
			list = append(list, m)
		default:
			return list
		}
	}
	return list
}

func (q *misses) sayUnknown(m Miss, n int, now time.Time) {
	if !q.said.IsZero() && now.Sub(q.said) < missLogPeriod {
		q.silent += n
		return
	}
	q.log.Info("no lease for an address that was asked for", "addr", m.Addr, "others", q.silent+n-1)
	q.said, q.silent = now, 0
}
