package kernel

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// demand is what is needed to answer for addresses that have no entries yet.
type demand struct {
	// answers are in the order of their subnets.
	answers []Answer
	// gaps are the routes that close what no lease has, with the time of their
	// making. They are put when somebody asks there, so that a scan costs one
	// question per gap and not a neighbour entry per address.
	gaps map[routeKey]time.Time
}

// gapLife is how long a gap is closed, up to the next pass.
const gapLife = time.Minute

// maxGaps bounds what a scan can make us put.
const maxGaps = 4096

// gapMetric leaves the way free for any other route to the same destination.
const gapMetric = 4096

// index makes ready to answer for the plan of this pass.
func (p *pass) index(now time.Time) {
	if slices.Equal(p.want.Answers, p.before.Answers) && slices.Equal(p.want.Catches, p.before.Catches) {
		for k, made := range p.gaps {
			if now.Sub(made) > gapLife {
				delete(p.gaps, k)
			}
		}
		return
	}
	p.answers = slices.Clone(p.want.Answers)
	slices.SortFunc(p.answers, func(a, b Answer) int { return a.Subnet.Addr().Compare(b.Subnet.Addr()) })
	// What was a gap may have a lease.
	p.gaps = nil
}

// at returns the position of the first answer whose subnet begins after a.
func (d *demand) at(a netip.Addr) int {
	i, _ := slices.BinarySearchFunc(d.answers, a, func(e Answer, a netip.Addr) int {
		if e.Subnet.Addr().Compare(a) <= 0 {
			return -1
		}
		return 1
	})
	return i
}

// find returns the answer for an address, or nil.
func (d *demand) find(a netip.Addr) *Answer {
	if i := d.at(a) - 1; i >= 0 && d.answers[i].Subnet.Contains(a) {
		return &d.answers[i]
	}
	return nil
}

// gap returns the largest part of the caught network around an address that
// no lease and not the own subnet overlaps.
func (d *demand) gap(c Catch, a netip.Addr) (netip.Prefix, bool) {
	i := d.at(a)
	for bits := c.Network.Bits() + 1; bits <= a.BitLen(); bits++ {
		g, _ := a.Prefix(bits)
		free := !g.Overlaps(c.Own) && (i == 0 || !g.Overlaps(d.answers[i-1].Subnet)) &&
			(i == len(d.answers) || !g.Overlaps(d.answers[i].Subnet))
		if free {
			return g, true
		}
	}
	return netip.Prefix{}, false
}

// waiting is an address that the kernel holds packets for. The zero MAC means
// that nobody has it.
type waiting struct {
	neighKey
	mac MAC
}

// answerOnDemand adds what is needed for an address that has no entries yet,
// and what to do with the packets that wait. It reports whether a peer has it.
func (p *pass) answerOnDemand(m Miss, w *missWork) bool {
	best := p.find(m.Addr)
	if best == nil || p.links[best.Route.Dev].index != m.Index {
		p.nobody(m, w)
		return false
	}
	if !p.installed(best, m.Index) && !slices.Contains(w.installing, best) {
		w.installing = append(w.installing, best)
		again(w.fdb, fdbKey{m.Index, best.FDB.MAC}, fdbValue{dst: best.FDB.Dst})
		again(w.neighbors, neighKey{m.Index, best.Neighbor.Addr}, best.Neighbor.MAC)
		k, v := best.Route.entry(m.Index)
		again(w.routes, k, v)
	}
	if m.Addr != best.Neighbor.Addr {
		w.waiting = append(w.waiting, waiting{neighKey{m.Index, m.Addr}, best.Neighbor.MAC})
	}
	return true
}

// installed reports whether all entries of an answer are remembered.
func (p *pass) installed(a *Answer, dev int) bool {
	to, fdb := p.fdb[fdbKey{dev, a.FDB.MAC}]
	mac, neighbor := p.neighbors[neighKey{dev, a.Neighbor.Addr}]
	k, v := a.Route.entry(dev)
	have, route := p.routes[k]
	return fdb && neighbor && route && to == (fdbValue{dst: a.FDB.Dst}) && mac == a.Neighbor.MAC && have == v
}

// askedFor returns the answers of which the tables hold at least one entry.
// The three belong together: while one is there the kernel does not always ask
// for the others.
func (p *pass) askedFor(answers []Answer) []Answer {
	var list []Answer
	for _, a := range answers {
		dev, ok := p.dev(a.Route.Dev)
		if !ok {
			continue
		}
		_, fdb := p.fdb[fdbKey{dev, a.FDB.MAC}]
		_, neighbor := p.neighbors[neighKey{dev, a.Neighbor.Addr}]
		k, _ := a.Route.entry(dev)
		if _, route := p.routes[k]; fdb || neighbor || route {
			list = append(list, a)
		}
	}
	return list
}

// nobody deals with an address that no lease has.
func (p *pass) nobody(m Miss, w *missWork) {
	i := slices.IndexFunc(p.want.Catches, func(c Catch) bool {
		return p.links[c.Dev].index == m.Index && c.Network.Contains(m.Addr)
	})
	if i >= 0 {
		p.closeGap(p.want.Catches[i], m, w)
		w.waiting = append(w.waiting, waiting{neighKey{m.Index, m.Addr}, MAC{}})
	}
}

func (p *pass) closeGap(c Catch, m Miss, w *missWork) {
	g, ok := p.gap(c, m.Addr)
	if !ok || len(p.gaps) >= maxGaps {
		return
	}
	k, v := Route{Dst: g, Blackhole: true, Metric: gapMetric}.entry(0)
	if _, closed := p.gaps[k]; closed {
		return
	}
	if p.gaps == nil {
		p.gaps = make(map[routeKey]time.Time)
	}
	p.gaps[k] = time.Now()
	again(w.routes, k, v)
}

// expire removes the entries of answers that nobody has used for a while: the
// kernel notes when an FDB entry has last sent a packet.
func (r *reconciler) expire(ctx context.Context, unused time.Duration) {
	r.pass.Lock()
	defer r.pass.Unlock()
	if len(r.want.Catches) == 0 || r.unsure.Load() {
		return
	}
	p := r.newPass(ctx)
	w := newMissWork(p)
	for _, c := range r.want.Catches {
		dev, ok := r.links[c.Dev]
		if !ok {
			continue
		}
		idle := map[MAC]bool{}
		err := r.edge.fdbAges(dev.index, func(k fdbKey, age time.Duration) {
			if age > unused {
				idle[k.mac] = true
			}
		})
		if err != nil {
			r.log.Debug("ages of FDB entries not read", "err", err)
			return
		}
		p.forget(idle, dev, w)
	}
	w.routes.del(routeKey.name)
	w.neighbors.del(neighKey.name)
	w.fdb.del(fdbKey.name)
	if err := p.failures.err(); err != nil {
		r.log.Warn("unused entries not removed", "err", err)
		r.Invalidate()
	}
	if n := p.stats.Deleted[TableRoutes]; n > 0 {
		r.log.Debug("peers without traffic removed", "peers", n)
	}
}

// forget adds the entries of the answers with these MACs to what is deleted, if
// they are there.
func (p *pass) forget(macs map[MAC]bool, dev link, w *missWork) {
	if len(macs) == 0 {
		return
	}
	for i := range p.answers {
		a := &p.answers[i]
		if a.FDB.Dev != dev.name || !macs[a.FDB.MAC] {
			continue
		}
		stale(w.fdb, fdbKey{dev.index, a.FDB.MAC})
		stale(w.neighbors, neighKey{dev.index, a.Neighbor.Addr})
		k, _ := a.Route.entry(dev.index)
		stale(w.routes, k)
	}
}

func stale[K, V comparable](w *work[K, V], k K) {
	if v, ok := w.memory[k]; ok {
		w.stale = append(w.stale, entry[K, V]{k, v})
	}
}

// missWork is what the answers to some misses have to write.
type missWork struct {
	fdb        *work[fdbKey, fdbValue]
	neighbors  *work[neighKey, MAC]
	routes     *work[routeKey, routeValue]
	installing []*Answer
	waiting    []waiting
}

func newMissWork(p *pass) *missWork {
	return &missWork{
		fdb:       &work[fdbKey, fdbValue]{p: p, table: p.edge.fdb, memory: p.fdb},
		neighbors: &work[neighKey, MAC]{p: p, table: p.edge.neighbors, memory: p.neighbors},
		routes:    &work[routeKey, routeValue]{p: p, table: p.edge.routes, memory: p.routes},
	}
}

// write puts everything and lets the packets go that wait.
func (w *missWork) write(p *pass) {
	w.fdb.write(w.fdb.puts, p.fdbFailed)
	w.neighbors.write(w.neighbors.puts, p.neighborFailed)
	p.putRoutes(w.routes)
	if len(w.waiting) > 0 {
		p.edge.release(w.waiting)
	}
}
