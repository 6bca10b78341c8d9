package subnettest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"

	"flannel/internal/ipfam"
	"flannel/subnet"
	"flannel/subnet/alloc"
)

// Manager is a node's view of a Store.
type Manager struct {
	// BeforeCreate, when set, is called after a subnet is chosen and before
	// its lease is created.
	BeforeCreate func(ipfam.Pair[netip.Prefix])

	store *Store
	rnd   *rand.Rand

	mu     sync.Mutex
	config *subnet.Config
	own    *subnet.Lease
}

var _ subnet.Manager = (*Manager)(nil)

// Manager returns the manager of a further node. Its choice of subnets is the
// same each time for the same seed.
func (s *Store) Manager(seed uint64) *Manager {
	return &Manager{store: s, rnd: rand.New(rand.NewPCG(seed, seed))}
}

// Config implements subnet.Manager.
func (m *Manager) Config(ctx context.Context) (*subnet.Config, error) {
	var config *subnet.Config
	err := m.store.reach(ctx, func() bool {
		c, err := subnet.ParseConfig([]byte(m.store.config), true)
		config = c
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.config = config
	return config, nil
}

// StoreAddrs implements subnet.Manager: this store has no address.
func (m *Manager) StoreAddrs() []netip.Addr { return nil }

// Overrides implements subnet.Manager: there are none.
func (m *Manager) Overrides(context.Context) (ipfam.Pair[netip.Addr], error) {
	return ipfam.Pair[netip.Addr]{}, nil
}

// Previous implements subnet.Manager.
func (m *Manager) Previous(ctx context.Context, public ipfam.Pair[netip.Addr], prev ipfam.Pair[netip.Prefix]) (a subnet.Attrs, err error) {
	leases, err := m.List(ctx)
	if err != nil {
		return subnet.Attrs{}, err
	}
	l := former(leases, subnet.Attrs{PublicIP: public}, prev)
	if l == nil {
		return subnet.Attrs{}, nil
	}
	a = l.Attrs
	if l.Subnet != prev {
		a.Data = subnet.Attrs{}.Data // perhaps of a node that had this address
	}
	return a, nil
}

// former returns the lease that an earlier run of a node has published: that
// of its subnet, also when its value was lost, else the oldest.
func former(leases []*subnet.Lease, a subnet.Attrs, prev ipfam.Pair[netip.Prefix]) *subnet.Lease {
	var best *subnet.Lease
	for _, l := range leases {
		if l.Subnet == prev && (l.Invalid != "" || sameNode(l.Attrs, a)) {
			return l
		}
		if !sameNode(l.Attrs, a) {
			continue
		}
		if best == nil || l.Precedence.Before(best.Precedence) {
			best = l
		}
	}
	return best
}

// sameNode reports whether two records share a public address or a device.
func sameNode(a, b subnet.Attrs) bool {
	return sameAddress(a.PublicIP, b.PublicIP) || sameDevice(a, b)
}

func sameDevice(a, b subnet.Attrs) bool {
	for f, data := range a.Data.Each() {
		if data != "" && data == b.Data[f] {
			return true
		}
	}
	return false
}

func sameAddress(a, b ipfam.Pair[netip.Addr]) bool {
	for f, addr := range ipfam.Addrs(a) {
		if addr == b[f] {
			return true
		}
	}
	return false
}

// List implements subnet.Manager.
func (m *Manager) List(ctx context.Context) ([]*subnet.Lease, error) {
	var leases []*subnet.Lease
	err := m.store.reach(ctx, func() bool {
		leases = m.store.all()
		return true
	})
	return leases, err
}

// Acquire implements subnet.Manager.
func (m *Manager) Acquire(ctx context.Context, a subnet.Attrs, prev ipfam.Pair[netip.Prefix]) (subnet.Lease, error) {
	config, err := m.currentConfig(ctx)
	if err != nil {
		return subnet.Lease{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	pools := alloc.Of(config)
	for {
		own, found, err := m.reuse(ctx, pools, a, prev)
		if err != nil || found {
			return own, err
		}
		leases, err := m.List(ctx)
		if err != nil {
			return subnet.Lease{}, err
		}
		subnets, err := pools.Choose([]ipfam.Pair[netip.Prefix]{prev}, subnetsOf(leases), m.rnd)
		if err != nil {
			return subnet.Lease{}, err
		}
		if m.BeforeCreate != nil {
			m.BeforeCreate(subnets)
		}
		own, created, err := m.create(ctx, pools, subnets, a)
		if err != nil || created {
			return own, err
		}
	}
}

func (m *Manager) currentConfig(ctx context.Context) (*subnet.Config, error) {
	m.mu.Lock()
	config := m.config
	m.mu.Unlock()
	if config != nil {
		return config, nil
	}
	return m.Config(ctx)
}

func subnetsOf(leases []*subnet.Lease) []ipfam.Pair[netip.Prefix] {
	all := make([]ipfam.Pair[netip.Prefix], len(leases))
	for i, l := range leases {
		all[i] = l.Subnet
	}
	return all
}

// reuse publishes a under what this node has already, and deletes what does
// not fit the configuration.
func (m *Manager) reuse(ctx context.Context, pools alloc.Pools, a subnet.Attrs, prev ipfam.Pair[netip.Prefix]) (own subnet.Lease, found bool, err error) {
	s := m.store
	err = s.reach(ctx, func() bool {
		var e *entry
		if m.own != nil {
			e = s.records[m.own.Name]
		}
		if e != nil && m.lost(e, a) {
			e = nil
		}
		if l := former(s.all(), a, prev); e == nil && l != nil {
			e = s.records[l.Name]
		}
		switch {
		case e == nil:
		case !pools.Fit(e.lease.Subnet):
			delete(s.records, e.lease.Name)
			s.touch()
		default:
			own, found = s.put(subnet.Lease{Subnet: e.lease.Subnet, Attrs: a}, e.reserved(), m), true
			m.own = &own
			s.removeOthers(own)
			s.touch()
		}
		return true
	})
	return own, found, err
}

func (m *Manager) create(ctx context.Context, pools alloc.Pools, subnets ipfam.Pair[netip.Prefix], a subnet.Attrs) (own subnet.Lease, created bool, err error) {
	s := m.store
	err = s.reach(ctx, func() bool {
		taken := slices.ContainsFunc(s.all(), func(l *subnet.Lease) bool { return pools.Overlap(subnets, l.Subnet) })
		if !taken {
			own, created = s.put(subnet.Lease{Subnet: subnets, Attrs: a}, false, m), true
			m.own = &own
			s.touch()
		}
		return true
	})
	return own, created, err
}

// Keep implements subnet.Manager.
func (m *Manager) Keep(ctx context.Context, own subnet.Lease, notify func(subnet.Lease)) error {
	s := m.store
	var lost error
	err := s.reach(ctx, func() bool {
		switch e := s.records[name(own.Subnet)]; {
		case e == nil:
			lost = m.restore(own, notify)
		case e.lease.Invalid != "":
			own = s.put(own, e.reserved(), m)
			s.touch()
		case m.lost(e, own.Attrs):
			lost = subnet.ErrLeaseLost
		}
		return lost != nil
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.own = nil
	return fmt.Errorf("%w: %s", lost, name(own.Subnet))
}

// lost reports whether a record is another node's than this one, which
// publishes a.
func (m *Manager) lost(e *entry, a subnet.Attrs) bool {
	return e.lease.Invalid == "" && e.by != m && !sameNode(e.lease.Attrs, a)
}

// reserved reports whether a record stays a reservation when it is written.
func (e *entry) reserved() bool { return e.reservation && e.lease.Invalid == "" }

// restore publishes a deleted lease again. It is called with the store's lock
// held.
func (m *Manager) restore(own subnet.Lease, notify func(subnet.Lease)) error {
	for _, l := range m.store.all() {
		for f, p := range ipfam.Prefixes(own.Subnet) {
			if l.Subnet[f].IsValid() && l.Subnet[f].Overlaps(p) {
				return subnet.ErrLeaseLost
			}
		}
	}
	own = m.store.put(own, false, m)
	m.store.touch()
	notify(own)
	return nil
}

// Watch implements subnet.Manager.
func (m *Manager) Watch(ctx context.Context, set func(subnet.Snapshot)) error {
	s := m.store
	var last []*subnet.Lease
	first := true
	for {
		err := s.reach(ctx, func() bool {
			leases := s.all()
			if !first && subnet.EqualLeases(leases, last) {
				return false
			}
			last, first = leases, false
			return true
		})
		if err != nil {
			return err
		}
		set(subnet.Snapshot{Leases: last})
	}
}

// Reconnect implements subnet.Manager.
func (m *Manager) Reconnect() {}
