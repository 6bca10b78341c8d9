package kernel

import (
	"iter"
)

// dev returns the index of a device. The last answer is kept, because long
// runs of entries name the same device.
func (p *pass) dev(name string) (int, bool) {
	if name == p.lastName && name != "" {
		return p.lastIndex, p.lastIndex != 0
	}
	l, ok := p.links[name]
	if !ok {
		if p.missing == nil {
			p.missing = make(map[string]bool)
		}
		p.missing[name] = true
	}
	p.lastName, p.lastIndex = name, l.index
	return l.index, ok
}

// The functions below turn entries of a State into entries of the kernel's
// tables. Those whose device is missing are left out.

func (p *pass) addrEntries(list []Device, _ []Answer) iter.Seq2[addrKey, struct{}] {
	return func(yield func(addrKey, struct{}) bool) {
		for _, d := range list {
			dev, ok := p.dev(d.Name)
			for _, a := range d.Addrs {
				if ok && !yield(addrKey{dev, a}, struct{}{}) {
					return
				}
			}
		}
	}
}

func (p *pass) fdbEntries(list []FDBEntry, answers []Answer) iter.Seq2[fdbKey, fdbValue] {
	return func(yield func(fdbKey, fdbValue) bool) {
		for _, e := range list {
			dev, ok := p.dev(e.Dev)
			if ok && !yield(fdbKey{dev, e.MAC}, fdbValue{dst: e.Dst}) {
				return
			}
		}
		for _, a := range answers {
			dev, ok := p.dev(a.FDB.Dev)
			if ok && !yield(fdbKey{dev, a.FDB.MAC}, fdbValue{dst: a.FDB.Dst}) {
				return
			}
		}
	}
}

func (p *pass) neighborEntries(list []Neighbor, answers []Answer) iter.Seq2[neighKey, MAC] {
	return func(yield func(neighKey, MAC) bool) {
		for _, n := range list {
			dev, ok := p.dev(n.Dev)
			if ok && !yield(neighKey{dev, n.Addr}, n.MAC) {
				return
			}
		}
		for _, a := range answers {
			dev, ok := p.dev(a.Neighbor.Dev)
			if ok && !yield(neighKey{dev, a.Neighbor.Addr}, a.Neighbor.MAC) {
				return
			}
		}
	}
}

func (p *pass) routeEntries(list []Route, answers []Answer) iter.Seq2[routeKey, routeValue] {
	return func(yield func(routeKey, routeValue) bool) {
		for _, r := range list {
			if k, v, ok := p.route(r); ok && !yield(k, v) {
				return
			}
		}
		for _, a := range answers {
			if k, v, ok := p.route(a.Route); ok && !yield(k, v) {
				return
			}
		}
		for k := range p.gaps {
			if v, there := p.routes[k]; there && !yield(k, v) {
				return
			}
		}
	}
}

func (p *pass) route(r Route) (routeKey, routeValue, bool) {
	if r.Blackhole {
		k, v := r.entry(0)
		return k, v, true
	}
	known := r.Dev == p.lastName
	dev, ok := p.dev(r.Dev)
	if ok && !known {
		if p.used == nil {
			p.used = make(map[int]link)
		}
		p.used[dev] = p.links[r.Dev]
	}
	k, v := r.entry(dev)
	return k, v, ok
}
