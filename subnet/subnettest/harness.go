package subnettest

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/loop"
	"flannel/subnet"
)

// Harness is a store under test, and what happens to it behind the managers'
// backs.
type Harness interface {
	// Manager returns the manager of a further node. beforeCreate may be nil;
	// the manager calls it after it has chosen a subnet and before it creates
	// the lease.
	Manager(t *testing.T, beforeCreate func(ipfam.Pair[netip.Prefix])) subnet.Manager
	SetConfig(t *testing.T, text string)
	// Put stores a record, whether or not there was one. One with Invalid set has that text
	// for its value, which nobody can decode.
	Put(t *testing.T, l subnet.Lease, reservation bool)
	// Create stores a record unless one of exactly these subnets exists.
	Create(t *testing.T, l subnet.Lease) bool
	Delete(t *testing.T, subnets ipfam.Pair[netip.Prefix])
	Get(t *testing.T, subnets ipfam.Pair[netip.Prefix]) (l subnet.Lease, reservation, found bool)
	SetReachable(t *testing.T, reachable bool)
}

// patience is how long a test waits for what should happen at once.
const patience = 30 * time.Second

// Watching is a running Watch.
type Watching struct {
	t  *testing.T
	mu sync.Mutex
	// last is nil until the first set has arrived.
	last    []*subnet.Lease
	changed loop.Signal
}

// Watch runs a manager's Watch until the test ends.
func Watch(t *testing.T, m subnet.Manager) *Watching {
	t.Helper()
	w := &Watching{t: t, changed: loop.NewSignal()}
	Background(t, func(ctx context.Context) error { return m.Watch(ctx, w.set) })
	return w
}

func (w *Watching) set(s subnet.Snapshot) {
	w.mu.Lock()
	w.last = s.Leases
	if s.Leases == nil {
		w.last = []*subnet.Lease{}
	}
	w.mu.Unlock()
	w.changed.Send()
}

// Last returns the set that came last, nil when none has come.
func (w *Watching) Last() []*subnet.Lease {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// Await waits for a set of which ok holds.
func (w *Watching) Await(what string, ok func([]*subnet.Lease) bool) {
	w.t.Helper()
	timeout := time.After(patience)
	for {
		if last := w.Last(); last != nil && ok(last) {
			return
		}
		select {
		case <-w.changed:
		case <-timeout:
			w.t.Fatalf("no set with %s, the last one is %v", what, w.Last())
		}
	}
}

// AwaitSubnets waits for a set of exactly these subnets.
func (w *Watching) AwaitSubnets(want ...ipfam.Pair[netip.Prefix]) {
	w.t.Helper()
	w.Await("exactly the expected subnets", func(leases []*subnet.Lease) bool {
		return len(leases) == len(want) && !slices.ContainsFunc(leases, func(l *subnet.Lease) bool {
			return !slices.Contains(want, l.Subnet)
		})
	})
}

// Background runs f until the test ends or stop is called, which wait for it.
// The channel gives what f returned.
func Background(t *testing.T, f func(context.Context) error) (result <-chan error, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done, out := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(done)
		out <- f(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return out, stop
}

// Keep returns a function for Background that keeps a lease.
func Keep(m subnet.Manager, own subnet.Lease) func(context.Context) error {
	return func(ctx context.Context) error { return m.Keep(ctx, own, func(subnet.Lease) {}) }
}
