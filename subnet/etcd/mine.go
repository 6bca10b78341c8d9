package etcd

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/ipfam"
	"flannel/subnet"
	"flannel/subnet/alloc"
)

// Previous implements subnet.Manager. It answers with the record that Acquire
// goes on with.
func (m *Manager) Previous(ctx context.Context, public ipfam.Pair[netip.Addr], prev ipfam.Pair[netip.Prefix]) (subnet.Attrs, error) {
	config, err := m.currentConfig(ctx)
	if err != nil {
		return subnet.Attrs{}, err
	}
	s, err := m.list(ctx)
	if err != nil {
		return subnet.Attrs{}, err
	}
	m.recent.Store(s)
	past := m.published().confirmed(public, prev)
	mine := s.of(subnet.Attrs{PublicIP: public}, prev, past)
	if len(mine) == 0 {
		return subnet.Attrs{}, nil
	}
	i, ok := s.reusable(mine, alloc.Of(config))
	if !ok {
		i = mine[0]
	}
	a := s.leases[i].Attrs
	if !s.earlierRun(i, prev, past) {
		a.Data = subnet.Attrs{}.Data
	}
	return a, nil
}

// earlierRun reports whether an earlier run on this node has written a lease: it
// is that of the subnet in subnet.env, and no other daemon is known to have
// changed it since, or it is under an etcd lease of this node.
func (s *snapshot) earlierRun(i int, prev ipfam.Pair[netip.Prefix], past published) bool {
	l, st := s.leases[i], s.stored[i]
	if past.wrote(st.etcdLease) {
		return true
	}
	changed := past.Name == st.name && st.etcdLease != clientv3.NoLease && !past.named(l.Attrs, st.etcdLease)
	return l.Invalid == "" && l.Subnet == prev && !changed
}

// of returns the positions of the leases that are a node's, the one to go on
// with first: a reservation, which cannot be deleted, then that of the subnet of
// an earlier run, then by the public address, then the oldest.
func (s *snapshot) of(a subnet.Attrs, prev ipfam.Pair[netip.Prefix], past published) []int {
	var mine []int
	former := encodeName(prev)
	for i, l := range s.leases {
		st := s.stored[i]
		if st.name != "" && (st.name == former || st.name == past.Name) {
			if classify(l, st.etcdLease, a, past.at(st.name)) != anothers {
				mine = append(mine, i)
			}
			continue
		}
		if l.Invalid == "" && (sameAddress(l.Attrs, a) || past.wrote(st.etcdLease) || sameOrigin(l.Attrs, a)) {
			mine = append(mine, i)
		}
	}
	slices.SortFunc(mine, func(i, j int) int {
		k, l := s.leases[i], s.leases[j]
		age := cmp.Or(cmp.Compare(k.Precedence.Age, l.Precedence.Age), cmp.Compare(i, j))
		if s.isReservation(i) && s.isReservation(j) {
			return age
		}
		return cmp.Or(
			first(s.isReservation(i), s.isReservation(j)),
			first(k.Subnet == prev, l.Subnet == prev),
			first(sameAddress(k.Attrs, a), sameAddress(l.Attrs, a)),
			age,
		)
	})
	return mine
}

func (s *snapshot) isReservation(i int) bool {
	return s.stored[i].etcdLease == clientv3.NoLease && s.leases[i].Invalid == ""
}

// sameAddress reports whether a record has the address that a node is known
// by: the IPv4 one, if it has one.
func sameAddress(record, node subnet.Attrs) bool {
	for f, addr := range ipfam.Addrs(node.PublicIP) {
		return record.PublicIP[f] == addr
	}
	return false
}

// sameOrigin reports whether two records surely come from one node: they share
// key material or, where the backend has none, say the very same. With udp
// several nodes may say the same, from behind one address.
func sameOrigin(a, b subnet.Attrs) bool {
	known := false
	for _, f := range ipfam.All() {
		x, y := identity(a.Data[f]), identity(b.Data[f])
		if x != "" && x == y {
			return true
		}
		known = known || x != "" || y != ""
	}
	return !known && a.BackendType != subnet.DefaultBackend && a.Equal(b)
}

// first orders what holds before what does not.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// reusable picks the first of mine that this node can go on with.
func (s *snapshot) reusable(mine []int, pools alloc.Pools) (int, bool) {
	for _, i := range mine {
		if pools.Fit(s.leases[i].Subnet) && !s.contested(i, mine, pools) {
			return i, true
		}
	}
	return 0, false
}

// contested reports whether a lease has to give way to one of another node: an
// older one that overlaps it, which the other nodes believe, or, as when it was
// created, any with the same first subnet, see yields.
func (s *snapshot) contested(i int, mine []int, pools alloc.Pools) bool {
	own := s.leases[i]
	for j, l := range s.leases {
		if l.Invalid != "" || slices.Contains(mine, j) || !pools.Overlap(own.Subnet, l.Subnet) {
			continue
		}
		if l.Precedence.Before(own.Precedence) || strings.HasPrefix(l.Name, claimPrefix(own.Subnet)) {
			return true
		}
	}
	return false
}

// discard deletes leases of this node that it cannot go on with, and returns
// them: one family may still be good.
func (m *Manager) discard(ctx context.Context, s *snapshot, mine []int, pools alloc.Pools) (discarded []int, err error) {
	for _, i := range mine {
		l := s.leases[i]
		if s.isReservation(i) && pools.Fit(l.Subnet) || !decodable(l, pools) {
			continue
		}
		m.log.Info("own lease does not fit the network, deleting it", "subnet", subnet.Join(l.Subnet))
		if err := m.remove(ctx, s.held(i)); err != nil {
			return nil, err
		}
		discarded = append(discarded, i)
	}
	return discarded, nil
}

// twins returns the leases that surely are this node's, which publishes a, but
// are not the own one. Reservations are none, an operator has made them.
func (s *snapshot) twins(own held, a subnet.Attrs, past published, pools alloc.Pools) []int {
	var twins []int
	for i, l := range s.leases {
		ours := past.wrote(s.stored[i].etcdLease) || sameOrigin(l.Attrs, a)
		if ours && l.Name != own.name() && l.Invalid == "" && !s.isReservation(i) && decodable(l, pools) {
			twins = append(twins, i)
		}
	}
	return twins
}

// removeTwins deletes further leases of this node: the other nodes would
// believe the oldest one.
func (m *Manager) removeTwins(ctx context.Context, s *snapshot, own held, twins []int) error {
	m.sayTwins(s, own, twins)
	for _, i := range twins {
		if err := m.remove(ctx, s.held(i)); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) sayTwins(s *snapshot, own held, twins []int) {
	for _, i := range twins {
		m.log.Warn("another lease of this node is in the store, deleting it",
			"subnet", subnet.Join(s.leases[i].Subnet), "own", subnet.Join(own.lease.Subnet))
	}
}

// yields reports whether the own lease, which was just created, has to give
// way: to an older one that overlaps it, or to any with the same first subnet.
// The latter came after ours, so its owner does not look for keys like ours and
// will not give way: flannel takes 10.1.2.0-24 and 10.1.2.0-24&… for different
// things. Twins are no reason.
func (s *snapshot) yields(own held, twins []int, pools alloc.Pools) bool {
	for i, l := range s.leases {
		if l.Name == own.name() || !pools.Overlap(own.lease.Subnet, l.Subnet) || slices.Contains(twins, i) {
			continue
		}
		older := l.Precedence.Age < own.lease.Precedence.Age
		if older || strings.HasPrefix(l.Name, claimPrefix(own.lease.Subnet)) {
			return true
		}
	}
	return false
}

// decodable reports whether flannel nodes, if there can be any, can read the
// key of a lease. When one is deleted that they cannot read they forget all
// their peers. It ends by itself.
func decodable(l *subnet.Lease, pools alloc.Pools) bool {
	return !pools[ipfam.V4].IsOn() || l.Subnet[ipfam.V4].IsValid()
}
