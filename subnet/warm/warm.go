// Package warm lets a node run from what it knew last, while the store of leases
// cannot be reached.
package warm

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/logonce"
	"flannel/internal/loop"
	"flannel/internal/statedir"
	"flannel/subnet"
)

// Store is a store of leases that can be told from others.
type Store interface {
	subnet.Manager
	// Identity is another one when the store was replaced by another, or this
	// node was registered anew. It is known once the store has answered.
	Identity() string
}

// Options define what is known of the last run, and when it is used.
type Options struct {
	Log *slog.Logger
	Dir *statedir.Dir
	// Where identifies the store and this node: the state of another store or
	// node is not used.
	Where string
	// Check rejects a network configuration that no backend can work with.
	Check func(*subnet.Config) error
	// Away reports whether the store cannot be reached.
	Away func() bool
	// Running is called with the time of the last contact when the node starts to
	// run from the state, and with the zero time when the store has answered. It
	// must not block.
	Running func(since time.Time)
}

const (
	// patience is how long the store may take to answer at the start.
	patience = 5 * time.Second
	// checkEvery is how often it is checked whether the state can be used.
	checkEvery = time.Second
)

// otherStore is added to the epoch of snapshots when the store is another one
// than that of the state.
const otherStore = 1 << 32

// Manager is a Store that, while the inner one cannot be reached at the start,
// returns what was known at the last run. Once the inner one answers, its answers
// are used. Run must run while the other methods are used.
type Manager struct {
	Store
	o     Options
	begun time.Time
	// answered is closed when the store has confirmed what was taken from the
	// state, changed when it has not.
	answered, changed chan struct{}
	giveUp            sync.Once
	// ownChanged and peersChanged ask Run to save.
	ownChanged, peersChanged loop.Signal

	mu sync.Mutex
	// unusable is why the state was not used the last time.
	unusable logonce.Last[string]
	// settled is true once the store has given this node its lease, or confirmed
	// that of the state: the state is no longer used.
	settled bool
	// wanted is what this node publishes.
	wanted *subnet.Attrs
	// running is the state that the node runs from; nil when it does not.
	running *state
	// now is what the next run is to know. It has no lease until one was
	// acquired.
	now    state
	leases []*subnet.Lease
}

var _ subnet.Manager = (*Manager)(nil)

// New returns a manager that has asked for nothing yet.
func New(inner Store, o Options) *Manager {
	return &Manager{
		Store: inner, o: o, begun: time.Now(), now: state{Format: format, Where: o.Where},
		answered: make(chan struct{}), changed: make(chan struct{}),
		ownChanged: loop.NewSignal(), peersChanged: loop.NewSignal(),
	}
}

// Config implements subnet.Manager.
func (m *Manager) Config(ctx context.Context) (*subnet.Config, error) {
	c, err := ask(ctx, m, m.Store.Config, func(s *state) *subnet.Config { return s.Config })
	if err == nil {
		m.update(func() { m.now.Config = c })
	}
	return c, err
}

// Overrides implements subnet.Manager.
func (m *Manager) Overrides(ctx context.Context) (ipfam.Pair[netip.Addr], error) {
	o, err := ask(ctx, m, m.Store.Overrides, func(s *state) ipfam.Pair[netip.Addr] { return s.Overrides })
	if err == nil {
		m.update(func() { m.now.Overrides = o })
	}
	return o, err
}

// Previous implements subnet.Manager.
func (m *Manager) Previous(ctx context.Context, public ipfam.Pair[netip.Addr], prev ipfam.Pair[netip.Prefix]) (subnet.Attrs, error) {
	return ask(ctx, m, func(ctx context.Context) (subnet.Attrs, error) {
		return m.Store.Previous(ctx, public, prev)
	}, func(s *state) subnet.Attrs { return s.Own.Attrs })
}

// Acquire implements subnet.Manager. The lease of the state is this node's only
// while the node publishes the same as then.
func (m *Manager) Acquire(ctx context.Context, a subnet.Attrs, prev ipfam.Pair[netip.Prefix]) (subnet.Lease, error) {
	m.update(func() { m.wanted = &a })
	if s := m.state(); s != nil && s.Asked != a {
		if err := m.confirm(ctx); err != nil {
			return subnet.Lease{}, err
		}
	}
	return ask(ctx, m, func(ctx context.Context) (subnet.Lease, error) {
		own, err := m.Store.Acquire(ctx, a, prev)
		if err == nil {
			m.noteOwn(own)
		}
		return own, err
	}, func(s *state) subnet.Lease { return s.Own })
}

// Keep implements subnet.Manager. It returns nil once the store has confirmed
// what was taken from the state: then the lease is acquired from the store.
func (m *Manager) Keep(ctx context.Context, own subnet.Lease, notify func(subnet.Lease)) error {
	if m.state() != nil {
		return m.confirm(ctx)
	}
	return m.Store.Keep(ctx, own, func(l subnet.Lease) {
		m.noteOwn(l)
		notify(l)
	})
}

// Watch implements subnet.Manager. The leases of the state are held until the
// store has shown its own.
func (m *Manager) Watch(ctx context.Context, set func(subnet.Snapshot)) error {
	s := m.state()
	if s != nil {
		set(subnet.Snapshot{Leases: m.loadPeers(s), Unconfirmed: true})
		select {
		case <-m.answered:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return m.Store.Watch(ctx, func(now subnet.Snapshot) {
		if s != nil && s.Identity != m.Identity() {
			now.Epoch += otherStore
		}
		m.notePeers(now.Leases)
		set(now)
	})
}

// StoreAddrs implements subnet.Manager. Those of the state count until the store
// answers: a record in the state must not cut this node off from its store.
func (m *Manager) StoreAddrs() []netip.Addr {
	addrs := m.Store.StoreAddrs()
	if s := m.state(); s != nil {
		addrs = append(addrs, s.Addrs...)
	}
	return addrs
}

// Changed blocks until the store has shown that what the node runs from is out
// of date. An error means that ctx has ended.
func (m *Manager) Changed(ctx context.Context) error {
	select {
	case <-m.changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask asks the store. If it cannot be reached and the state can be used, the
// answer comes from the state.
func ask[T any](ctx context.Context, m *Manager, request func(context.Context) (T, error), known func(*state) T) (T, error) {
	if s := m.state(); s != nil {
		return known(s), nil
	}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value, err := request(asking)
		answers <- answer{value, err}
	}()
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	for {
		select {
		case a := <-answers:
			return a.value, a.err
		case <-check.C:
		}
		s := m.usable()
		if s == nil {
			continue
		}
		cancel()
		if a := <-answers; a.err == nil || ctx.Err() != nil {
			return a.value, a.err
		}
		m.run(s)
		return known(s), nil
	}
}

// usable returns the state if the node is to run from it.
func (m *Manager) usable() *state {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.settled || time.Since(m.begun) < patience || !m.o.Away() {
		return nil
	}
	s, err := load(m.o.Dir)
	if err == nil {
		err = s.check(m.o, m.now.Config, m.wanted, time.Now())
	}
	if err == nil {
		return s
	}
	if !errors.Is(err, fs.ErrNotExist) && m.unusable.Changed(err.Error()) {
		m.o.Log.Info("what is known from the last run is not used", "why", err)
	}
	return nil
}

// run makes the node run from the state.
func (m *Manager) run(s *state) {
	m.update(func() { m.running = s })
	m.o.Log.Warn("the store of leases cannot be reached; this node runs from what it knew last",
		"known", s.Contact, "subnet", ipfam.Join(s.Own.Subnet))
	m.o.Running(s.Contact)
}

// confirm asks the store for what was taken from the state. When that has
// changed, the state is given up, and confirm waits until ctx ends.
func (m *Manager) confirm(ctx context.Context) error {
	s := m.state()
	config, err := m.Store.Config(ctx)
	if err != nil {
		return err
	}
	overrides, err := m.Store.Overrides(ctx)
	if err != nil {
		return err
	}
	if !sameConfig(config, s.Config) || overrides != s.Overrides {
		if err := m.o.Dir.Save(ownDocument, state{}); err != nil {
			m.o.Log.Warn("state of the last run not removed", "err", err)
		}
		m.giveUp.Do(func() { close(m.changed) })
		<-ctx.Done()
		return ctx.Err()
	}
	if id := m.Identity(); id != s.Identity {
		m.o.Log.Warn("the store is not that of the last run", "now", id, "before", s.Identity)
	}
	m.update(func() { m.running, m.settled = nil, true })
	m.o.Log.Info("the store of leases answers; this node runs from it again")
	m.o.Running(time.Time{})
	close(m.answered)
	return nil
}

// state returns what the node runs from, nil when the store answers.
func (m *Manager) state() *state {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.running
}

func (m *Manager) update(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}
