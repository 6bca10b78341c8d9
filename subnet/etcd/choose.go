package etcd

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	"flannel/internal/ipfam"
	"flannel/subnet"
	"flannel/subnet/alloc"
)

// Previous implements subnet.Manager. It answers with the record that Acquire
// takes over.
func (m *Manager) Previous(ctx context.Context, public ipfam.Pair[netip.Addr], prev ipfam.Pair[netip.Prefix]) (subnet.Attrs, error) {
	config, err := m.currentConfig(ctx)
	if err != nil {
		return subnet.Attrs{}, err
	}
	s, err := do(ctx, m, m.readAll)
	if err != nil {
		return subnet.Attrs{}, err
	}
	m.recent.Store(s)
	node := self{want: subnet.Attrs{PublicIP: public}, past: m.published().confirmed(public, prev), prev: prev}
	ownRecords := s.recordsOf(node)
	if len(ownRecords) == 0 {
		return subnet.Attrs{}, nil
	}
	r := s.reusable(ownRecords, alloc.Of(config))
	if r == nil {
		r = ownRecords[0]
	}
	a := r.lease.Attrs
	if !node.earlierRun(r) {
		a.Data = subnet.Attrs{}.Data
	}
	return a, nil
}

// recordsOf returns the records of a node, the one to take over first: a
// reservation, which cannot be deleted, then that of the subnet of an earlier
// run, then by the public address, then the oldest.
func (s *snapshot) recordsOf(node self) []*record {
	var ownRecords []*record
	former := encodeName(node.prev)
	for _, r := range s.records {
		underOurKey := r.name != "" && (r.name == former || r.name == node.past.Name)
		whose := node.evidence(r)
		if whose == sure || underOurKey && whose != foreign || whose == likely && node.knownBy(r) {
			ownRecords = append(ownRecords, r)
		}
	}
	slices.SortStableFunc(ownRecords, func(x, y *record) int {
		age := cmp.Compare(x.lease.Precedence.Age, y.lease.Precedence.Age)
		if x.isReservation() && y.isReservation() {
			return age
		}
		return cmp.Or(
			compareTrueFirst(x.isReservation(), y.isReservation()),
			compareTrueFirst(x.lease.Subnet == node.prev, y.lease.Subnet == node.prev),
			compareTrueFirst(node.knownBy(x), node.knownBy(y)),
			age,
		)
	})
	return ownRecords
}

// compareTrueFirst orders true before false.
func compareTrueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// reusable returns the first of this node's records that it can take over, nil
// if there is none. Records that cannot be decoded do not count against it: the
// other nodes do not use them.
func (s *snapshot) reusable(ownRecords []*record, pools alloc.Pools) *record {
	ignored := func(r *record) bool { return r.lease.Invalid != "" || slices.Contains(ownRecords, r) }
	for _, r := range ownRecords {
		if pools.Fit(r.lease.Subnet) && !s.mustYield(r, ignored, pools) {
			return r
		}
	}
	return nil
}

// mustYield reports whether a record of this node has to give way to one of
// another node that is not ignored: to an older one that overlaps it, which the
// other nodes use, or to any with the same first subnet. The latter came after
// ours, so its owner does not look for keys like ours and will not give way:
// flannel takes 10.1.2.0-24 and 10.1.2.0-24&… for different things.
func (s *snapshot) mustYield(own *record, ignored func(*record) bool, pools alloc.Pools) bool {
	first := firstSubnet(own.lease.Subnet)
	return slices.ContainsFunc(s.records, func(r *record) bool {
		if r.name == own.name || !pools.Overlap(own.lease.Subnet, r.lease.Subnet) || ignored(r) {
			return false
		}
		return r.lease.Precedence.Before(own.lease.Precedence) || strings.HasPrefix(r.name, first)
	})
}

// discard deletes records of this node that it cannot take over, and returns
// them: one family may still be good.
func (m *Manager) discard(ctx context.Context, ownRecords []*record, pools alloc.Pools) (discarded []*record, err error) {
	for _, r := range ownRecords {
		if r.isReservation() && pools.Fit(r.lease.Subnet) || !r.mayBeDeleted(pools) {
			continue
		}
		m.log.Info("lease of this node does not fit the network, deleting it", "subnet", ipfam.Join(r.lease.Subnet))
		if err := m.remove(ctx, r); err != nil {
			return nil, err
		}
		discarded = append(discarded, r)
	}
	return discarded, nil
}

// duplicates returns the records that surely are those of this node, but are not
// the one in use. Reservations are none, an operator has made them.
func (s *snapshot) duplicates(own *record, node self, pools alloc.Pools) []*record {
	var duplicates []*record
	for _, r := range s.records {
		if r.name != own.name && !r.isReservation() && node.evidence(r) == sure && r.mayBeDeleted(pools) {
			duplicates = append(duplicates, r)
		}
	}
	return duplicates
}

// removeDuplicates deletes further records of this node: the other nodes would
// use the oldest one.
func (m *Manager) removeDuplicates(ctx context.Context, own *record, duplicates []*record) error {
	m.logDuplicates(own, duplicates)
	for _, r := range duplicates {
		if err := m.remove(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) logDuplicates(own *record, duplicates []*record) {
	for _, r := range duplicates {
		m.log.Warn("another lease of this node is in the store, deleting it",
			"subnet", ipfam.Join(r.lease.Subnet), "own", ipfam.Join(own.lease.Subnet))
	}
}

// mayBeDeleted reports whether flannel nodes, if there can be any, can decode the
// key of a record. If not, its deletion would make them drop all their peers; it
// ends by itself.
func (r *record) mayBeDeleted(pools alloc.Pools) bool {
	return !pools[ipfam.V4].IsOn() || r.lease.Subnet[ipfam.V4].IsValid()
}
