package kerneltest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"flannel/kernel"
)

// tables are what a Fake holds.
type tables struct {
	mu sync.Mutex
	// observer is nil while nobody follows.
	observer *kernel.Observer
	refuse   func(entry string) error
	// locked are the aliases of the instances whose daemon runs.
	locked    map[string]bool
	last      int // The highest index so far.
	links     map[int]kernel.Link
	txOff     map[int]bool
	addrs     map[kernel.AddrKey]struct{}
	fdb       map[kernel.FDBKey]kernel.FDBValue
	neighbors map[kernel.NeighborKey]kernel.MAC
	// routes with the same key are in the order in which they win.
	routes map[kernel.RouteKey][]kernel.RouteValue
}

func newTables() *tables {
	return &tables{
		locked: map[string]bool{}, links: map[int]kernel.Link{}, txOff: map[int]bool{},
		addrs: map[kernel.AddrKey]struct{}{}, fdb: map[kernel.FDBKey]kernel.FDBValue{},
		neighbors: map[kernel.NeighborKey]kernel.MAC{}, routes: map[kernel.RouteKey][]kernel.RouteValue{},
	}
}

func (t *tables) backing() kernel.Backing {
	return kernel.Backing{
		Links:     links{t},
		Addrs:     table(t, kernel.TableAddresses, func(k kernel.AddrKey, _ struct{}) string { return t.addrText(k) }, inMap(t.addrs)),
		FDB:       table(t, kernel.TableFDB, t.fdbText, inMap(t.fdb)),
		Neighbors: table(t, kernel.TableNeighbors, t.neighText, inMap(t.neighbors)),
		Routes:    table(t, kernel.TableRoutes, t.routeText, entries[kernel.RouteKey, kernel.RouteValue]{t.eachRouteLocked, t.putRouteLocked, t.removeRouteLocked}),
		Alive: func(instance string) bool {
			t.mu.Lock()
			defer t.mu.Unlock()
			return t.locked[kernel.Alias(instance)]
		},
		Watch:   func(kernel.Subscription) error { return nil },
		Follow:  t.follow,
		Close:   func() error { return nil },
		FDBAges: func(int, func(kernel.FDBKey, time.Duration)) error { return nil },
		Release: func([]kernel.Waiting) {},
		Host: func() (h kernel.Host, err error) {
			t.mu.Lock()
			defer t.mu.Unlock()
			for k := range t.addrs {
				h.Addrs = append(h.Addrs, kernel.HostAddr{Addr: k.Prefix, Dev: t.links[k.Dev].Name})
			}
			return h, nil
		},
		FindRoutes: func([]kernel.RouteKey) (map[kernel.RouteKey]kernel.RouteValue, error) {
			t.mu.Lock()
			defer t.mu.Unlock()
			found := map[kernel.RouteKey]kernel.RouteValue{}
			for k, list := range t.routes {
				found[k] = list[0]
			}
			return found, nil
		},
	}
}

// follow tells the observer of every change until ctx ends.
func (t *tables) follow(ctx context.Context, o kernel.Observer) {
	set := func(o *kernel.Observer) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.observer = o
	}
	set(&o)
	defer set(nil)
	<-ctx.Done()
}

// entries are those of a table. Its functions are called with the lock.
type entries[K, V comparable] struct {
	each   func(func(K, V))
	put    func(kernel.Change[K, V]) error
	remove func(kernel.Entry[K, V])
}

// inMap are entries in a map.
func inMap[K, V comparable](m map[K]V) entries[K, V] {
	return entries[K, V]{
		each: func(yield func(K, V)) {
			for k, v := range m {
				yield(k, v)
			}
		},
		put: func(c kernel.Change[K, V]) error {
			m[c.Key] = c.Want
			return nil
		},
		remove: func(e kernel.Entry[K, V]) { delete(m, e.Key) },
	}
}

// table is a table with these entries.
func table[K, V comparable](t *tables, name string, text func(K, V) string, has entries[K, V]) kernel.Table[K, V] {
	return kernel.Table[K, V]{
		Name: name,
		List: func(_ kernel.Selection, each func(K, V)) error {
			t.mu.Lock()
			defer t.mu.Unlock()
			has.each(each)
			return nil
		},
		Put: func(changes []kernel.Change[K, V], fail func(int, error)) {
			for i, c := range changes {
				err := t.write(func() string { return text(c.Key, c.Want) }, func() error { return has.put(c) })
				if err != nil {
					fail(i, err)
				}
			}
		},
		Delete: func(list []kernel.Entry[K, V], fail func(int, error)) {
			for i, e := range list {
				if err := t.write(func() string { return text(e.Key, e.Value) }, func() error {
					has.remove(e)
					return nil
				}); err != nil {
					fail(i, err)
				}
			}
		},
	}
}

func (t *tables) eachRouteLocked(yield func(kernel.RouteKey, kernel.RouteValue)) {
	for k, list := range t.routes {
		for _, v := range list {
			yield(k, v)
		}
	}
}

// putRouteLocked puts a route. Like the kernel it refuses to create one whose key
// is there, and replaces the first of several with the same key unless another
// one of them is what is wanted.
func (t *tables) putRouteLocked(c kernel.Change[kernel.RouteKey, kernel.RouteValue]) error {
	list := t.routes[c.Key]
	switch {
	case len(list) == 0:
		t.routes[c.Key] = []kernel.RouteValue{c.Want}
		return nil
	case !c.Exists || slices.Contains(list[1:], c.Want):
		return syscall.EEXIST
	}
	list[0] = c.Want
	return nil
}

// removeRouteLocked deletes a route. Like the kernel it takes a deletion without
// a metric for one of the lowest metric there is.
func (t *tables) removeRouteLocked(e kernel.Entry[kernel.RouteKey, kernel.RouteValue]) {
	lowest, found := e.Key, false
	for k, list := range t.routes {
		same := k.Dst == e.Key.Dst && k.TOS == e.Key.TOS && slices.Contains(list, e.Value) && (e.Key.Metric == 0 || k.Metric == e.Key.Metric)
		if same && (!found || k.Metric < lowest.Metric) {
			lowest, found = k, true
		}
	}
	t.dropRouteLocked(lowest, func(v kernel.RouteValue) bool { return v == e.Value })
}

// dropRouteLocked removes some of the routes with the same key.
func (t *tables) dropRouteLocked(k kernel.RouteKey, drop func(kernel.RouteValue) bool) {
	t.routes[k] = slices.DeleteFunc(t.routes[k], drop)
	if len(t.routes[k]) == 0 {
		delete(t.routes, k)
	}
}

// write does what act does unless the write is refused.
func (t *tables) write(text func() string, act func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refuse != nil {
		if err := t.refuse(text()); err != nil {
			return err
		}
	}
	return act()
}

// links are the devices of a Fake.
type links struct{ t *tables }

func (f links) List(each func(kernel.Link)) error {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	for _, l := range f.t.links {
		each(l)
	}
	return nil
}

func (f links) Get(index int) (kernel.Link, error) {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	l, ok := f.t.links[index]
	if !ok {
		return l, syscall.ENODEV
	}
	return l, nil
}

func (f links) Add(d kernel.Device, alias string) error {
	l := newLink(d)
	switch l.Kind {
	case kernel.KindTUN:
		l.Alias = alias
	case "":
		return kernel.ErrUnknownKind
	}
	return f.t.write(func() string { return f.t.linkText(l) }, func() error {
		for _, other := range f.t.links {
			if other.Name == d.Name || kernel.InTheWay(d, other) {
				return syscall.EEXIST
			}
		}
		f.t.addLocked(l)
		return nil
	})
}

// newLink is the device as the kernel makes it.
func newLink(d kernel.Device) kernel.Link {
	l := kernel.Link{Name: d.Name, MTU: d.MTU, MAC: d.MAC}
	switch {
	case d.TUN:
		l.Kind = kernel.KindTUN
	case d.VXLAN != nil:
		l.Kind, l.VXLAN = kernel.KindVXLAN, *d.VXLAN
		l.VXLAN.Port = d.VXLAN.UDPPort()
	}
	return l
}

func (f links) Change(index int, c kernel.LinkChange) error {
	text := func() string { return f.t.linkText(c.After(f.t.links[index])) }
	return f.t.write(text, func() error {
		l, ok := f.t.links[index]
		if !ok {
			return syscall.ENODEV
		}
		f.t.links[index] = c.After(l)
		return nil
	})
}

func (f links) Delete(index int) error {
	return f.t.write(func() string { return f.t.linkText(f.t.links[index]) }, func() error {
		f.t.deleteLinkLocked(index)
		return nil
	})
}

func (f links) TxChecksum(name string) (bool, error) {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	return !f.t.txOff[f.t.indexLocked(name)], nil
}

func (f links) TxChecksumOff(name string) error {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	f.t.txOff[f.t.indexLocked(name)] = true
	return nil
}

func (f links) Prepare(kernel.Link, kernel.Device) error { return nil }

func (t *tables) addLocked(l kernel.Link) int {
	t.last++
	l.Index = t.last
	t.links[l.Index] = l
	return l.Index
}

func (t *tables) indexLocked(name string) int {
	for i, l := range t.links {
		if l.Name == name {
			return i
		}
	}
	return 0
}

func (t *tables) delete(prefix string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	t.eachLocked(func(_ int, line string, remove func()) {
		if strings.HasPrefix(line, prefix) {
			n++
			remove()
		}
	})
	return n
}

// eachLocked passes all entries as text.
func (t *tables) eachLocked(each func(section int, line string, remove func())) {
	for k, l := range t.links {
		each(0, t.linkText(l), func() { t.deleteLinkLocked(k) })
	}
	for k := range t.addrs {
		each(1, t.addrText(k), func() { delete(t.addrs, k) })
	}
	for k, v := range t.fdb {
		each(2, t.fdbText(k, v), func() { delete(t.fdb, k) })
	}
	for k, v := range t.neighbors {
		each(3, t.neighText(k, v), func() { delete(t.neighbors, k) })
	}
	for k, list := range t.routes {
		for _, v := range slices.Clone(list) {
			each(4, t.routeText(k, v), func() { t.dropRouteLocked(k, func(other kernel.RouteValue) bool { return other == v }) })
		}
	}
}

func (t *tables) deleteLinkLocked(index int) {
	delete(t.links, index)
	delete(t.txOff, index)
	maps.DeleteFunc(t.addrs, func(k kernel.AddrKey, _ struct{}) bool { return k.Dev == index })
	maps.DeleteFunc(t.fdb, func(k kernel.FDBKey, _ kernel.FDBValue) bool { return k.Dev == index })
	maps.DeleteFunc(t.neighbors, func(k kernel.NeighborKey, _ kernel.MAC) bool { return k.Dev == index })
	for k := range t.routes {
		t.dropRouteLocked(k, func(v kernel.RouteValue) bool { return v.Dev == index })
	}
}

func (t *tables) linkText(l kernel.Link) string {
	d := kernel.Device{Name: l.Name, MTU: l.MTU, MAC: l.MAC, TxChecksumOff: t.txOff[l.Index]}
	if l.Kind == kernel.KindVXLAN {
		d.VXLAN = &l.VXLAN
	}
	d.TUN = l.Kind == kernel.KindTUN
	line := d.String()
	if !l.Up {
		line += " down"
	}
	if l.Alias != "" {
		line += fmt.Sprintf(" alias %q", l.Alias)
	}
	return line
}

func (t *tables) addrText(k kernel.AddrKey) string {
	return fmt.Sprintf("addr %s dev %s", k.Prefix, t.links[k.Dev].Name)
}

func (t *tables) fdbText(k kernel.FDBKey, v kernel.FDBValue) string {
	return kernel.FDBEntry{Dev: t.links[k.Dev].Name, MAC: k.MAC, Dst: v.Dst}.String()
}

func (t *tables) neighText(k kernel.NeighborKey, mac kernel.MAC) string {
	return kernel.Neighbor{Dev: t.links[k.Dev].Name, Addr: k.Addr, MAC: mac}.String()
}

func (t *tables) routeText(k kernel.RouteKey, v kernel.RouteValue) string {
	r := kernel.Route{Dst: k.Dst, Via: v.Via, Dev: t.links[v.Dev].Name, OnLink: v.OnLink, Metric: int(k.Metric), Blackhole: v.Blackhole}
	if standard, _ := (kernel.Route{Dst: r.Dst, Via: r.Via, Blackhole: r.Blackhole}).Entry(0); k.Metric == standard.Metric {
		r.Metric = 0
	}
	line := r.String()
	if k.TOS != 0 {
		line += fmt.Sprintf(" tos %#x", k.TOS)
	}
	if v.Protocol != kernel.RouteProtocol {
		line += fmt.Sprintf(" proto %d", v.Protocol)
	}
	return line
}
