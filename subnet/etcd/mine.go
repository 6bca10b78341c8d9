package etcd

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

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
	mine := s.of(public, prev)
	if i, ok := s.reusable(mine, alloc.Of(config)); ok {
		return s.leases[i].Attrs, nil
	}
	if len(mine) > 0 {
		return s.leases[mine[0]].Attrs, nil
	}
	return subnet.Attrs{}, nil
}

// of returns the positions of the leases that a node with these public
// addresses has published: first that of the subnet of an earlier run, then
// the oldest. With IPv4 that address decides.
func (s *snapshot) of(public ipfam.Pair[netip.Addr], prev ipfam.Pair[netip.Prefix]) []int {
	var mine []int
	for f, addr := range ipfam.Addrs(public) {
		for i, l := range s.leases {
			if l.Invalid == "" && l.Attrs.PublicIP[f] == addr {
				mine = append(mine, i)
			}
		}
		break
	}
	slices.SortFunc(mine, func(a, b int) int {
		return cmp.Or(
			first(s.leases[a].Subnet == prev, s.leases[b].Subnet == prev),
			cmp.Compare(s.leases[a].Claim.Age, s.leases[b].Claim.Age),
			cmp.Compare(a, b),
		)
	})
	return mine
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
		if pools.Fit(s.leases[i].Subnet) && !s.contested(i, pools) {
			return i, true
		}
	}
	return 0, false
}

// contested reports whether an older lease overlaps a lease: then the other
// nodes refuse it.
func (s *snapshot) contested(i int, pools alloc.Pools) bool {
	return slices.ContainsFunc(s.leases, func(l subnet.Lease) bool {
		return l.Invalid == "" && l.Claim.Before(s.leases[i].Claim) && pools.Overlap(s.leases[i].Subnet, l.Subnet)
	})
}
