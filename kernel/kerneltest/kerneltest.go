// Package kerneltest is a kernel in memory, for tests.
package kerneltest

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"flannel/kernel"
)

// Fake is a kernel in memory. It makes the same decisions as the real one,
// because it shares the Reconciler; only the tables are its own. It prints
// itself as text.
type Fake struct {
	*kernel.Reconciler
	tables *tables
}

// New returns a kernel that has no devices.
func New(scope kernel.Scope) *Fake { return over(newTables(), scope) }

// Restart returns a daemon that starts on the same machine and remembers
// nothing.
func (f *Fake) Restart(scope kernel.Scope) *Fake { return over(f.tables, scope) }

func over(t *tables, scope kernel.Scope) *Fake {
	return &Fake{kernel.NewReconciler(slog.New(slog.DiscardHandler), scope, t.backing()), t}
}

// Backing returns the tables, for a Reconciler over them.
func (f *Fake) Backing() kernel.Backing { return f.tables.backing() }

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
	index := f.tables.addLocked(kernel.Link{Name: name, MTU: mtu, Up: true})
	f.tables.mu.Unlock()
	f.tampered()
	return index
}

// Lock does for this machine what kernel.LockInstance does.
func (f *Fake) Lock(instance string) (io.Closer, error) {
	f.tables.mu.Lock()
	defer f.tables.mu.Unlock()
	l := lock{f.tables, kernel.Alias(instance)}
	if f.tables.locked[l.alias] {
		return nil, fmt.Errorf("lock instance %q: %w", instance, kernel.ErrInstanceLocked)
	}
	f.tables.locked[l.alias] = true
	return l, nil
}

// lock is that of the instance whose devices have an alias.
type lock struct {
	tables *tables
	alias  string
}

func (l lock) Close() error {
	l.tables.mu.Lock()
	defer l.tables.mu.Unlock()
	delete(l.tables.locked, l.alias)
	return nil
}

// AddDevice adds a device as somebody else would, up and without a mark. It
// returns its index.
func (f *Fake) AddDevice(d kernel.Device) int {
	l := newLink(d)
	l.Up = true
	f.tables.mu.Lock()
	index := f.tables.addLocked(l)
	for _, a := range d.Addrs {
		f.tables.addrs[kernel.AddrKey{Dev: index, Prefix: a}] = struct{}{}
	}
	f.tables.mu.Unlock()
	f.tampered()
	return index
}

// AddAddr gives a device an address, as somebody else would.
func (f *Fake) AddAddr(dev string, a netip.Prefix) {
	f.tables.mu.Lock()
	f.tables.addrs[kernel.AddrKey{Dev: f.tables.indexLocked(dev), Prefix: a}] = struct{}{}
	f.tables.mu.Unlock()
	f.tampered()
}

// AddRoute adds a route as somebody else with this protocol number would, over
// a device that exists.
func (f *Fake) AddRoute(r kernel.Route, protocol int) {
	f.addRoute(r, 0, protocol, func([]kernel.RouteValue) []kernel.RouteValue { return nil })
}

// PrependRoute does the same for the packets with a TOS, 0 for all, in front of
// routes with the same key.
func (f *Fake) PrependRoute(r kernel.Route, tos uint8, protocol int) {
	f.addRoute(r, tos, protocol, func(behind []kernel.RouteValue) []kernel.RouteValue { return behind })
}

func (f *Fake) addRoute(r kernel.Route, tos uint8, protocol int, keep func([]kernel.RouteValue) []kernel.RouteValue) {
	f.tables.mu.Lock()
	k, v := r.Entry(f.tables.indexLocked(r.Dev))
	v.Protocol, k.TOS = uint8(protocol), tos
	if r.Dst.Addr().Is4() && !r.Blackhole {
		k.Metric = uint32(r.Metric)
	}
	f.tables.routes[k] = append([]kernel.RouteValue{v}, keep(f.tables.routes[k])...)
	f.tables.mu.Unlock()
	f.tampered()
}

// Delete removes all entries whose text begins with prefix, as somebody else
// would: "route 10.5.2.0/24", "link flannel.1", "neigh". All that is on a device
// is removed with it. It returns how many entries matched.
func (f *Fake) Delete(prefix string) int {
	n := f.tables.delete(prefix)
	f.tampered()
	return n
}

// tampered makes the next pass look, whether or not Run is running.
func (f *Fake) tampered() {
	f.Invalidate()
	f.tables.mu.Lock()
	observer := f.tables.observer
	f.tables.mu.Unlock()
	if observer != nil {
		observer.Suspect()
	}
}

// String returns all entries in the words of State.String, beside them the
// alias of devices and the protocol of routes that are not of ours.
func (f *Fake) String() string {
	var sections [5][]string
	f.tables.mu.Lock()
	f.tables.eachLocked(func(section int, line string, _ func()) { sections[section] = append(sections[section], line+"\n") })
	f.tables.mu.Unlock()
	var b strings.Builder
	for _, lines := range sections {
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, ""))
	}
	return b.String()
}
