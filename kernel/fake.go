package kernel

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"sync"
)

// Fake is a kernel in memory. It makes the same decisions as Netlink, because
// it shares all of them; only the tables are its own. It prints itself as text.
type Fake struct {
	*reconciler
	tables *fakeTables
}

// NewFake returns a kernel that has no devices.
func NewFake(scope Scope) *Fake {
	t := &fakeTables{
		alive: map[string]bool{}, links: map[int]link{}, txOff: map[int]bool{}, addrs: map[addrKey]struct{}{}, fdb: map[fdbKey]fdbValue{},
		neighbors: map[neighKey]MAC{}, routes: map[routeKey]routeValue{},
	}
	return &Fake{newReconciler(slog.New(slog.DiscardHandler), scope, t.edge()), t}
}

// Restart returns a daemon that starts on the same machine and remembers
// nothing.
func (f *Fake) Restart(scope Scope) *Fake {
	return &Fake{newReconciler(f.log, scope, f.tables.edge()), f.tables}
}

// Run calls changed whenever AddLink, AddRoute or Delete has changed the
// tables, until ctx ends. One Run at a time.
func (f *Fake) Run(ctx context.Context, changed func()) error {
	f.tables.setChanged(changed)
	defer f.tables.setChanged(nil)
	<-ctx.Done()
	return ctx.Err()
}

// Refuse makes every write fail for which why returns an error. It is asked
// with the text of the entry, as String shows it. nil lets all pass.
func (f *Fake) Refuse(why func(entry string) error) {
	f.tables.mu.Lock()
	defer f.tables.mu.Unlock()
	f.tables.refuse = why
}

// AddLink adds a device that is not ours, is up and has this MTU. It returns
// its index.
func (f *Fake) AddLink(name string, mtu int) int {
	f.tables.mu.Lock()
	index := f.tables.addLocked(link{name: name, mtu: mtu, up: true})
	f.tables.mu.Unlock()
	f.tampered()
	return index
}

// Claim does what the function Claim does, for this machine.
func (f *Fake) Claim(instance string) (io.Closer, error) {
	f.tables.mu.Lock()
	defer f.tables.mu.Unlock()
	name := shortName(instance)
	if f.tables.alive[name] {
		return nil, fmt.Errorf("claim instance %q: %w", instance, ErrClaimed)
	}
	f.tables.alive[name] = true
	return fakeClaim{f.tables, name}, nil
}

type fakeClaim struct {
	tables *fakeTables
	name   string
}

func (c fakeClaim) Close() error {
	c.tables.mu.Lock()
	defer c.tables.mu.Unlock()
	delete(c.tables.alive, c.name)
	return nil
}

// AddDevice adds a device as somebody else would, up and without a mark. It
// returns its index.
func (f *Fake) AddDevice(d Device) int {
	l := newLink(d)
	l.up = true
	f.tables.mu.Lock()
	index := f.tables.addLocked(l)
	for _, a := range d.Addrs {
		f.tables.addrs[addrKey{index, a}] = struct{}{}
	}
	f.tables.mu.Unlock()
	f.tampered()
	return index
}

// AddAddr gives a device an address, as somebody else would.
func (f *Fake) AddAddr(dev string, a netip.Prefix) {
	f.tables.mu.Lock()
	f.tables.addrs[addrKey{f.tables.indexLocked(dev), a}] = struct{}{}
	f.tables.mu.Unlock()
	f.tampered()
}

// AddRoute adds a route as somebody else with this protocol number would, over
// a device that exists.
func (f *Fake) AddRoute(r Route, protocol int) {
	f.tables.mu.Lock()
	k, v := r.entry(f.tables.indexLocked(r.Dev))
	v.protocol = uint8(protocol)
	f.tables.routes[k] = v
	f.tables.mu.Unlock()
	f.tampered()
}

// Delete removes all entries whose text begins with prefix, as somebody else
// would: "route 10.5.2.0/24", "link flannel.1", "neigh". With a device goes
// all that is on it. It returns how many entries matched.
func (f *Fake) Delete(prefix string) int {
	n := f.tables.delete(prefix)
	f.tampered()
	return n
}

func (f *Fake) tampered() {
	f.Invalidate()
	f.tables.mu.Lock()
	changed := f.tables.changed
	f.tables.mu.Unlock()
	if changed != nil {
		changed()
	}
}

// String returns all entries in the words of State.String, beside them the
// alias of devices and the protocol of routes that are not of ours.
func (f *Fake) String() string {
	var t text
	f.tables.mu.Lock()
	defer f.tables.mu.Unlock()
	f.tables.eachLocked(func(section int, line string, _ func()) { t.add(section, line) })
	return t.String()
}

// fakeTables are the tables of a Fake.
type fakeTables struct {
	mu        sync.Mutex
	changed   func()
	refuse    func(entry string) error
	last      int // The highest index so far.
	alive     map[string]bool
	links     map[int]link
	txOff     map[int]bool
	addrs     map[addrKey]struct{}
	fdb       map[fdbKey]fdbValue
	neighbors map[neighKey]MAC
	routes    map[routeKey]routeValue
}

func (t *fakeTables) setChanged(changed func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changed = changed
}

func (t *fakeTables) addLocked(l link) int {
	t.last++
	l.index = t.last
	t.links[l.index] = l
	return l.index
}

func (t *fakeTables) indexLocked(name string) int {
	for i, l := range t.links {
		if l.name == name {
			return i
		}
	}
	return 0
}

func (t *fakeTables) delete(prefix string) int {
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
func (t *fakeTables) eachLocked(each func(section int, line string, remove func())) {
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
	for k, v := range t.routes {
		each(4, t.routeText(k, v), func() { delete(t.routes, k) })
	}
}

func (t *fakeTables) deleteLinkLocked(index int) {
	delete(t.links, index)
	delete(t.txOff, index)
	maps.DeleteFunc(t.addrs, func(k addrKey, _ struct{}) bool { return k.dev == index })
	maps.DeleteFunc(t.fdb, func(k fdbKey, _ fdbValue) bool { return k.dev == index })
	maps.DeleteFunc(t.neighbors, func(k neighKey, _ MAC) bool { return k.dev == index })
	maps.DeleteFunc(t.routes, func(_ routeKey, v routeValue) bool { return v.dev == index })
}

func (t *fakeTables) linkText(l link) string {
	d := Device{Name: l.name, MTU: l.mtu, MAC: l.mac, TxChecksumOff: t.txOff[l.index]}
	if l.kind == kindVXLAN {
		d.VXLAN = &l.vxlan
	}
	d.TUN = l.kind == kindTUN
	line := d.String()
	if !l.up {
		line += " down"
	}
	if l.alias != "" {
		line += fmt.Sprintf(" alias %q", l.alias)
	}
	return line
}

func (t *fakeTables) addrText(k addrKey) string {
	return fmt.Sprintf("addr %s dev %s", k.prefix, t.links[k.dev].name)
}

func (t *fakeTables) fdbText(k fdbKey, v fdbValue) string {
	return FDBEntry{t.links[k.dev].name, k.mac, v.dst}.String()
}

func (t *fakeTables) neighText(k neighKey, mac MAC) string {
	return Neighbor{t.links[k.dev].name, k.addr, mac}.String()
}

func (t *fakeTables) routeText(k routeKey, v routeValue) string {
	r := Route{k.dst, v.via, t.links[v.dev].name, v.onLink, k.metric, v.blackhole}
	if standard, _ := (Route{Dst: r.Dst, Blackhole: r.Blackhole}).entry(0); r.Metric == standard.metric {
		r.Metric = 0
	}
	line := r.String()
	if v.protocol != RouteProtocol {
		line += fmt.Sprintf(" proto %d", v.protocol)
	}
	return line
}
