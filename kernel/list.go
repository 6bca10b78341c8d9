package kernel

import (
	"errors"
)

// tables are the contents of the four tables of entries.
type tables struct {
	addrs     map[addrKey]struct{}
	fdb       map[fdbKey]fdbValue
	neighbors map[neighKey]MAC
	routes    map[routeKey]routeValue
}

// snapshot returns what is remembered. list replaces the maps and leaves
// these as they are.
func (m *memory) snapshot() tables {
	return tables{m.addrs, m.fdb, m.neighbors, m.routes}
}

// list reads our entries of all tables from the kernel and remembers them. It
// does so again when somebody has changed something meanwhile.
func (p *pass) list() error {
	const attempts = 3
	for range attempts {
		t, err := p.read()
		if err != nil {
			p.setListing(false)
			return err
		}
		if !p.remember(t) {
			return nil
		}
	}
	return errors.New("the tables keep changing while they are listed")
}

// read lists all tables. Events are kept until remember.
func (p *pass) read() (t tables, err error) {
	p.setListing(true)
	s := selection{unmarked: p.adopting() || len(p.owned)+len(p.former) > 0}
	for _, l := range p.owned {
		s.devices = append(s.devices, l.index)
	}
	t.addrs, err = collect(p.edge.addrs, s, len(p.addrs), func(k addrKey, _ struct{}) bool { return p.onOwned(k.dev) && p.judgesAddr(k) })
	if err != nil {
		return t, err
	}
	t.fdb, err = collect(p.edge.fdb, s, max(len(p.fdb), len(p.want.FDB)), func(k fdbKey, _ fdbValue) bool { return p.onOwned(k.dev) })
	if err != nil {
		return t, err
	}
	t.neighbors, err = collect(p.edge.neighbors, s, max(len(p.neighbors), len(p.want.Neighbors)), func(k neighKey, _ MAC) bool { return p.onOwned(k.dev) })
	if err != nil {
		return t, err
	}
	t.routes, err = collect(p.edge.routes, s, max(len(p.routes), len(p.want.Routes)), func(k routeKey, v routeValue) bool {
		return p.ownRoute(k, v) || p.adoptable(k, v)
	})
	return t, err
}

func (m *memory) setListing(on bool) {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.listing, m.unjudged = on, nil
}

// remember replaces what is remembered. It reports whether events have shown
// that the list is out of date already.
func (p *pass) remember(t tables) bool {
	p.lock.Lock()
	defer p.lock.Unlock()
	p.addrs, p.fdb, p.neighbors, p.routes = t.addrs, t.fdb, t.neighbors, t.routes
	p.listing = false
	return p.judgeAgainLocked()
}

// judgesAddr reports whether an address of our device is ours to remove when
// nobody wants it: it is of a family in which the device should have one, and
// not link-local, because the kernel makes those by itself.
func (p *pass) judgesAddr(k addrKey) bool {
	if k.prefix.Addr().IsLinkLocalUnicast() {
		return false
	}
	for _, l := range p.owned {
		if l.index == k.dev {
			return wantsFamily(p.want.Devices, l.name, k)
		}
	}
	return false
}

func wantsFamily(devices []Device, name string, k addrKey) bool {
	for _, d := range devices {
		if d.Name != name {
			continue
		}
		for _, a := range d.Addrs {
			if a.Addr().Is4() == k.prefix.Addr().Is4() {
				return true
			}
		}
	}
	return false
}

// onOwned reports whether a device is one of ours that is wanted.
func (r *reconciler) onOwned(dev int) bool { return hasIndex(r.owned, dev) }

// ownRoute reports whether a route is ours: it has our protocol number, and is
// on a device of ours or inside our networks; or it is flannel's on our device.
func (r *reconciler) ownRoute(k routeKey, v routeValue) bool {
	if v.protocol != RouteProtocol {
		return r.madeByFlannel(k, v)
	}
	return hasIndex(r.owned, v.dev) || hasIndex(r.former, v.dev) || r.scope.inside(k.dst)
}

func hasIndex(links []link, index int) bool {
	for i := range links {
		if links[i].index == index {
			return true
		}
	}
	return false
}
