package etcd

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
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
	if err := m.writing.Acquire(ctx, 1); err != nil {
		return subnet.Lease{}, err
	}
	defer m.writing.Release(1)
	if own := m.ownRecord(); own != nil {
		m.contention.SkipDelay()
		own, err := m.settle(ctx, own, a)
		if err == nil {
			return own.lease, nil
		}
		if !errors.Is(err, subnet.ErrLeaseLost) {
			return subnet.Lease{}, err
		}
	}
	pools := alloc.Of(config)
	// Subnets that could not be created although no lease that was read has
	// them: a strange key may be in the way.
	var avoid []ipfam.Pair[netip.Prefix]
	own, err := doRacing(ctx, m, func(ctx context.Context) (*record, error) {
		return m.tryAcquire(ctx, pools, a, prev, &avoid)
	})
	if err != nil {
		return subnet.Lease{}, err
	}
	m.setOwnRecord(own)
	return own.lease, nil
}

// tryAcquire takes over what this node had, or creates a lease of a subnet that
// is not in avoid. It adds one that turns out to be another node's.
func (m *Manager) tryAcquire(
	ctx context.Context, pools alloc.Pools, a subnet.Attrs, prev ipfam.Pair[netip.Prefix], avoid *[]ipfam.Pair[netip.Prefix],
) (*record, error) {
	epoch := m.epoch.Load()
	s := m.takeRecent()
	if s == nil {
		var err error
		if s, err = m.readAll(ctx); err != nil {
			return nil, err
		}
	}
	node := self{want: a, past: m.confirm(a.PublicIP, prev), prev: prev}
	ownRecords := s.recordsOf(node)
	if r := s.reusable(ownRecords, pools); r != nil {
		if node.earlierRun(r) { // perhaps flannel's
			m.remember(r.name, r.lease.Attrs, r.etcdLease)
		}
		return m.takeOver(ctx, s, r, pools, a, epoch)
	}
	discarded, err := m.discard(ctx, ownRecords, pools)
	if err != nil {
		return nil, err
	}
	subnets, err := pools.Choose(append(subnetsOf(discarded), prev), append(subnetsOf(s.without(discarded)), *avoid...), m.rnd)
	if err != nil {
		return nil, permanentError{err}
	}
	own, err := m.createAlone(ctx, s, pools, subnets, a)
	if errors.Is(err, errTaken) {
		*avoid = append(*avoid, subnets)
		return nil, permanentError{errRaced}
	}
	return own, err
}

// takeOver continues a lease that this node has published before.
func (m *Manager) takeOver(ctx context.Context, s *snapshot, r *record, pools alloc.Pools, a subnet.Attrs, epoch uint64) (*record, error) {
	own, err := m.put(ctx, r, a, !r.isReservation())
	if err != nil {
		return nil, err
	}
	if err := m.removeDuplicates(ctx, own, s.duplicates(own, m.self(a), pools)); err != nil {
		return nil, err
	}
	m.recent.Store(s)
	m.noteChecked(own, epoch)
	return own, nil
}

// createAlone creates a lease after the store was read. The error is errTaken if
// another node has the subnet.
func (m *Manager) createAlone(ctx context.Context, before *snapshot, pools alloc.Pools, subnets ipfam.Pair[netip.Prefix], a subnet.Attrs) (*record, error) {
	own, err := m.create(ctx, subnets, a, nil)
	if err != nil {
		return nil, err
	}
	s, err := m.standAlone(ctx, own, a, pools, before)
	if err != nil {
		return nil, err
	}
	m.recent.Store(s)
	return own, nil
}

// standAlone makes sure that no record but own has its subnet or belongs to this
// node, which publishes a. If own has to give way to that of another node, it is
// deleted and the error is errTaken. before is what readAgain takes.
func (m *Manager) standAlone(ctx context.Context, own *record, a subnet.Attrs, pools alloc.Pools, before *snapshot) (*snapshot, error) {
	epoch := m.epoch.Load()
	s, err := m.readAgain(ctx, before)
	if err != nil {
		return nil, err
	}
	duplicates := s.duplicates(own, m.self(a), pools)
	if s.mustYield(own, func(r *record) bool { return slices.Contains(duplicates, r) }, pools) {
		if err := m.remove(ctx, own); err != nil {
			return nil, err
		}
		return nil, permanentError{errTaken}
	}
	if err := m.removeDuplicates(ctx, own, duplicates); err != nil {
		return nil, err
	}
	m.noteChecked(own, epoch)
	return s, nil
}

// noteChecked notes that the other records of this epoch, see Manager.epoch, were
// looked at since own was created: it has precedence.
func (m *Manager) noteChecked(own *record, epoch uint64) {
	m.checkedRecord, m.checkedEpoch = own.lease.Precedence, epoch
}
