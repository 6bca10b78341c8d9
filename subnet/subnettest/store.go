// Package subnettest has a store of leases in memory, and the suite of tests
// that every store has to pass.
package subnettest

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// Store keeps leases in memory. Managers of one Store are the nodes of one
// network. Leases never expire.
type Store struct {
	mu sync.Mutex
	// changed is closed and replaced after each change.
	changed chan struct{}
	down    bool
	rev     int64
	config  string
	records map[string]*entry
}

// entry is one lease. Its lease is replaced and never changed.
type entry struct {
	lease       subnet.Lease
	reservation bool
	// by is who has written it, nil when no node has.
	by *Manager
}

// NewStore returns an empty store that can be reached.
func NewStore() *Store {
	return &Store{changed: make(chan struct{}), records: map[string]*entry{}}
}

// SetConfig stores a network configuration.
func (s *Store) SetConfig(text string) {
	s.change(func() { s.config = text })
}

// SetReachable starts or ends an outage.
func (s *Store) SetReachable(reachable bool) {
	s.change(func() { s.down = !reachable })
}

// Put stores a record, whether or not there was one. Precedence and Name are
// filled in.
func (s *Store) Put(l subnet.Lease, reservation bool) {
	s.change(func() { s.put(l, reservation, nil) })
}

// Create stores a record unless there is one of exactly these subnets, which
// is how much flannel looks. It reports whether it did.
func (s *Store) Create(l subnet.Lease) bool {
	created := false
	s.change(func() {
		if s.records[name(l.Subnet)] == nil {
			s.put(l, false, nil)
			created = true
		}
	})
	return created
}

// Delete deletes the record of a subnet.
func (s *Store) Delete(subnets ipfam.Pair[netip.Prefix]) {
	s.change(func() { delete(s.records, name(subnets)) })
}

// Get returns the record of a subnet and whether it is a reservation.
func (s *Store) Get(subnets ipfam.Pair[netip.Prefix]) (l subnet.Lease, reservation, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.records[name(subnets)]
	if e == nil {
		return subnet.Lease{}, false, false
	}
	return e.lease, e.reservation, true
}

func name(subnets ipfam.Pair[netip.Prefix]) string { return ipfam.Join(subnets) }

// put is called with the lock held.
func (s *Store) put(l subnet.Lease, reservation bool, by *Manager) subnet.Lease {
	l.Name = name(l.Subnet)
	l.Precedence = subnet.Precedence{Age: s.rev + 1, Name: l.Name}
	if old := s.records[l.Name]; old != nil {
		l.Precedence.Age = old.lease.Precedence.Age
	}
	s.records[l.Name] = &entry{l, reservation, by}
	return l
}

// removeOthers deletes the leases of a node's device but for own. It is
// called with the lock held.
func (s *Store) removeOthers(own subnet.Lease) {
	maps.DeleteFunc(s.records, func(name string, e *entry) bool {
		return name != own.Name && !e.reservation && sameDevice(e.lease.Attrs, own.Attrs)
	})
}

func (s *Store) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.touch()
}

// touch is called with the lock held, after a change.
func (s *Store) touch() {
	s.rev++
	close(s.changed)
	s.changed = make(chan struct{})
}

// all returns the leases in the order of their names. It is called with the
// lock held.
func (s *Store) all() []*subnet.Lease {
	leases := make([]*subnet.Lease, 0, len(s.records))
	for _, e := range s.records {
		leases = append(leases, &e.lease)
	}
	slices.SortFunc(leases, func(a, b *subnet.Lease) int { return strings.Compare(a.Name, b.Name) })
	return leases
}

// reach runs f with the lock held, as soon as the store can be reached and f
// reports true. It tries after each change, and returns ctx.Err() when ctx
// ends first.
func (s *Store) reach(ctx context.Context, f func() bool) error {
	for {
		s.mu.Lock()
		done := !s.down && f()
		changed := s.changed
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
