package kernel

import (
	"maps"
	"slices"
)

// expectLink remembers what our device should be before it is so.
func (r *reconciler) expectLink(d Device, l link) {
	r.lock.Lock()
	defer r.lock.Unlock()
	if w, ok := r.watched[l.index]; ok && w.own {
		r.watched[l.index] = watchedLink{link: l, own: true, txChecksumOff: d.TxChecksumOff}
	}
}

// forgetLink stops judging events of a device.
func (r *reconciler) forgetLink(index int) {
	r.lock.Lock()
	defer r.lock.Unlock()
	delete(r.watched, index)
	delete(r.prepared, index)
}

// watchOwned makes the events of our devices matter. When the set of devices
// grows it says that another round is needed: what happened before nobody saw.
func (p *pass) watchOwned(again *bool) error {
	p.lock.Lock()
	grown := false
	for _, l := range p.owned {
		if w, ok := p.watched[l.index]; ok && w.own {
			continue
		}
		d := p.want.Devices[slices.IndexFunc(p.want.Devices, func(d Device) bool { return d.Name == l.name })]
		p.watched[l.index] = watchedLink{link: l, own: true, txChecksumOff: d.TxChecksumOff}
		grown = true
	}
	p.lock.Unlock()
	if !grown {
		return nil
	}
	*again = true
	return p.edge.links.Watch()
}

// watchUsed makes the events of devices matter that routes lead over.
func (p *pass) watchUsed() error {
	p.lock.Lock()
	grown := false
	for index, l := range p.used {
		if _, ok := p.watched[index]; !ok {
			l.up = true // If it is not, the next event says so.
			p.watched[index] = watchedLink{link: l}
			grown = true
		}
	}
	p.lock.Unlock()
	if !grown {
		return nil
	}
	return p.edge.links.Watch()
}

// watchBlocked makes the removal of these routes of others matter, which are in
// the way of ours.
func (r *reconciler) watchBlocked(keys map[routeKey]bool) error {
	r.lock.Lock()
	before := len(r.blocked)
	r.blocked = keys
	r.lock.Unlock()
	if (before > 0) == (len(keys) > 0) {
		return nil
	}
	return r.edge.links.Watch()
}

// watching returns which devices are watched, and whether the removal of routes
// is.
func (r *reconciler) watching() (indexes []int, blocked bool) {
	r.lock.Lock()
	defer r.lock.Unlock()
	return slices.Sorted(maps.Keys(r.watched)), len(r.blocked) > 0
}
