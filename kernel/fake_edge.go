package kernel

import (
	"maps"
	"syscall"
	"time"
)

func (t *fakeTables) edge() backing {
	return backing{
		links:     fakeLinks{t},
		addrs:     fakeTable(t, TableAddresses, t.addrs, func(k addrKey, _ struct{}) string { return t.addrText(k) }),
		fdb:       fakeTable(t, TableFDB, t.fdb, t.fdbText),
		neighbors: fakeTable(t, TableNeighbors, t.neighbors, t.neighText),
		routes:    fakeTable(t, TableRoutes, t.routes, t.routeText),
		alive: func(instance string) bool {
			t.mu.Lock()
			defer t.mu.Unlock()
			return t.alive[shortName(instance)]
		},
		fdbAges: func(int, func(fdbKey, time.Duration)) error { return nil },
		release: func([]waiting) {},
		host: func() (h Host, err error) {
			t.mu.Lock()
			defer t.mu.Unlock()
			for k := range t.addrs {
				h.Addrs = append(h.Addrs, HostAddr{k.prefix, t.links[k.dev].name})
			}
			return h, nil
		},
		findRoutes: func([]routeKey) (map[routeKey]routeValue, error) {
			t.mu.Lock()
			defer t.mu.Unlock()
			return maps.Clone(t.routes), nil
		},
	}
}

// fakeTable is a table over a map. Like the kernel it refuses to create a
// route that is there.
func fakeTable[K, V comparable](t *fakeTables, name string, m map[K]V, text func(K, V) string) table[K, V] {
	return table[K, V]{
		name: name,
		list: func(_ selection, each func(K, V)) error {
			t.mu.Lock()
			defer t.mu.Unlock()
			for k, v := range maps.Clone(m) {
				each(k, v)
			}
			return nil
		},
		put: func(changes []change[K, V], fail func(int, error)) {
			for i, c := range changes {
				if err := t.write(func() string { return text(c.key, c.want) }, func() error {
					if _, taken := m[c.key]; taken && !c.exists && name == TableRoutes {
						return syscall.EEXIST
					}
					m[c.key] = c.want
					return nil
				}); err != nil {
					fail(i, err)
				}
			}
		},
		del: func(entries []entry[K, V], fail func(int, error)) {
			for i, e := range entries {
				if err := t.write(func() string { return text(e.key, e.value) }, func() error {
					delete(m, e.key)
					return nil
				}); err != nil {
					fail(i, err)
				}
			}
		},
	}
}

// write does what act does unless the write is refused.
func (t *fakeTables) write(text func() string, act func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refuse != nil {
		if err := t.refuse(text()); err != nil {
			return err
		}
	}
	return act()
}

// fakeLinks are the devices of a Fake.
type fakeLinks struct{ t *fakeTables }

func (f fakeLinks) List(each func(link)) error {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	for _, l := range f.t.links {
		each(l)
	}
	return nil
}

func (f fakeLinks) Add(d Device, alias string) error {
	l := newLink(d)
	switch l.kind {
	case kindTUN:
		l.alias = alias
	case "":
		return errUnknownKind
	}
	return f.t.write(func() string { return f.t.linkText(l) }, func() error {
		for _, other := range f.t.links {
			if other.name == d.Name || inTheWay(d, other) {
				return syscall.EEXIST
			}
		}
		f.t.addLocked(l)
		return nil
	})
}

// newLink is the device as the kernel makes it.
func newLink(d Device) link {
	l := link{name: d.Name, mtu: d.MTU, mac: d.MAC}
	switch {
	case d.TUN:
		l.kind = kindTUN
	case d.VXLAN != nil:
		l.kind, l.vxlan = kindVXLAN, *d.VXLAN
		l.vxlan.Port = d.VXLAN.port()
	}
	return l
}

func (f fakeLinks) Change(index int, c linkChange) error {
	text := func() string { return f.t.linkText(c.after(f.t.links[index])) }
	return f.t.write(text, func() error {
		l, ok := f.t.links[index]
		if !ok {
			return syscall.ENODEV
		}
		f.t.links[index] = c.after(l)
		return nil
	})
}

func (f fakeLinks) Delete(index int) error {
	return f.t.write(func() string { return f.t.linkText(f.t.links[index]) }, func() error {
		f.t.deleteLinkLocked(index)
		return nil
	})
}

func (f fakeLinks) TxChecksum(name string) (bool, error) {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	return !f.t.txOff[f.t.indexLocked(name)], nil
}

func (f fakeLinks) TxChecksumOff(name string) error {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	f.t.txOff[f.t.indexLocked(name)] = true
	return nil
}

func (f fakeLinks) Prepare(link, Device) error { return nil }

func (f fakeLinks) Watch() error { return nil }
