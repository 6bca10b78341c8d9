package etcd

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/wait"
	"flannel/subnet"
	"flannel/subnet/alloc"
)

// Acquire implements subnet.Manager. Attributes that cannot be stored and a
// network without a free subnet (alloc.ErrFull) are errors.
func (m *Manager) Acquire(ctx context.Context, a subnet.Attrs, prev ipfam.Pair[netip.Prefix]) (subnet.Lease, error) {
	config, err := m.currentConfig(ctx)
	if err != nil {
		return subnet.Lease{}, err
	}
	if err := m.lock(ctx); err != nil {
		return subnet.Lease{}, err
	}
	defer m.unlock()
	if own, have := m.currentOwn(); have {
		m.dispute.hurry()
		own, err := m.settle(ctx, own, a)
		if !errors.Is(err, subnet.ErrLeaseLost) {
			return own.lease, err
		}
	}
	own, err := m.acquire(ctx, alloc.Of(config), a, prev)
	if err != nil {
		return subnet.Lease{}, err
	}
	m.setOwn(&own)
	return own.lease, nil
}

// maxRaceDelay spreads nodes that run into each other.
const maxRaceDelay = 50 * time.Millisecond

func (m *Manager) acquire(ctx context.Context, pools alloc.Pools, a subnet.Attrs, prev ipfam.Pair[netip.Prefix]) (held, error) {
	// Subnets that could not be created although no lease that was read has
	// them: a strange key may be in the way.
	var avoid []ipfam.Pair[netip.Prefix]
	for {
		var own held
		err := m.do(ctx, func(ctx context.Context) (err error) {
			own, err = m.tryAcquire(ctx, pools, a, prev, &avoid)
			return err
		})
		if !errors.Is(err, errRaced) {
			return own, err
		}
		m.log.Debug("subnet was taken by another node, looking for another")
		if err := wait.For(ctx, rand.N(maxRaceDelay)); err != nil {
			return held{}, err
		}
	}
}

// tryAcquire takes over what this node had, or creates a lease of a subnet that
// is not in avoid. It adds one that turned out to be another node's.
func (m *Manager) tryAcquire(
	ctx context.Context, pools alloc.Pools, a subnet.Attrs, prev ipfam.Pair[netip.Prefix], avoid *[]ipfam.Pair[netip.Prefix],
) (held, error) {
	stores := m.stores()
	s := m.takeRecent()
	if s == nil {
		var err error
		if s, err = m.readAll(ctx); err != nil {
			return held{}, err
		}
	}
	past := m.confirm(a.PublicIP, prev)
	mine := s.of(a, prev, past)
	if i, ok := s.reusable(mine, pools); ok {
		if s.earlierRun(i, prev, past) { // perhaps flannel's
			m.remember(s.stored[i].name, s.leases[i].Attrs, s.stored[i].etcdLease)
		}
		own, err := m.reuse(ctx, s, i, pools, a)
		own.alone = stores
		return own, err
	}
	discarded, err := m.discard(ctx, s, mine, pools)
	if err != nil {
		return held{}, err
	}
	prefer := append(s.subnetsOf(discarded), prev)
	subnets, err := pools.Choose(prefer, append(s.subnetsWithout(discarded), *avoid...), m.rnd)
	if err != nil {
		return held{}, final{err}
	}
	own, ok, err := m.createAlone(ctx, pools, subnets, a)
	if err == nil && !ok {
		*avoid = append(*avoid, subnets)
		return held{}, final{errRaced}
	}
	return own, err
}

// reuse goes on with a lease that this node has published before.
func (m *Manager) reuse(ctx context.Context, s *snapshot, i int, pools alloc.Pools, a subnet.Attrs) (held, error) {
	own, err := m.put(ctx, s.held(i), a, !s.isReservation(i))
	if err != nil {
		return held{}, err
	}
	if err := m.removeTwins(ctx, s, own, s.twins(own, a, m.published(), pools)); err != nil {
		return held{}, err
	}
	m.recent.Store(s)
	return own, nil
}

// createAlone creates a lease and reports whether nobody has a better claim.
func (m *Manager) createAlone(
	ctx context.Context, pools alloc.Pools, subnets ipfam.Pair[netip.Prefix], a subnet.Attrs,
) (own held, ok bool, err error) {
	own, created, _, err := m.create(ctx, subnets, a, nil)
	if err != nil || !created {
		return held{}, false, err
	}
	stores := m.stores()
	after, err := m.readAll(ctx)
	if err != nil {
		return held{}, false, err
	}
	yielded, err := m.standAlone(ctx, after, own, a, pools)
	if err != nil || yielded {
		return held{}, false, err
	}
	m.recent.Store(after)
	own.alone = stores
	return own, true, nil
}

// standAlone makes sure that no record but the own one takes its subnet or
// speaks for this node, which publishes a. When another one has a better claim to the subnet it
// deletes the own one and reports true.
func (m *Manager) standAlone(ctx context.Context, s *snapshot, own held, a subnet.Attrs, pools alloc.Pools) (yielded bool, err error) {
	twins := s.twins(own, a, m.published(), pools)
	if s.yields(own, twins, pools) {
		return true, m.remove(ctx, own)
	}
	return false, m.removeTwins(ctx, s, own, twins)
}

func (s *snapshot) held(i int) held {
	return held{lease: *s.leases[i], mod: s.stored[i].mod, etcdLease: s.stored[i].etcdLease}
}

func (s *snapshot) heldAll(some []int) []held {
	var all []held
	for _, i := range some {
		all = append(all, s.held(i))
	}
	return all
}

func (s *snapshot) subnetsOf(some []int) []ipfam.Pair[netip.Prefix] {
	var subnets []ipfam.Pair[netip.Prefix]
	for _, i := range some {
		subnets = append(subnets, s.leases[i].Subnet)
	}
	return subnets
}

// subnetsWithout returns the subnets of all leases, also of those with a bad
// record, but for some.
func (s *snapshot) subnetsWithout(without []int) []ipfam.Pair[netip.Prefix] {
	all := make([]ipfam.Pair[netip.Prefix], 0, len(s.leases))
	for i, l := range s.leases {
		if !slices.Contains(without, i) {
			all = append(all, l.Subnet)
		}
	}
	return all
}
