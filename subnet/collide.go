package subnet

import (
	"fmt"
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
)

// prefixKey is a prefix as a map key that is cheap to hash.
type prefixKey struct {
	addr [16]byte
	bits uint8
}

// keyOf returns the prefix of this length that holds an address.
func keyOf(a netip.Addr, bits int) prefixKey {
	return prefixKey{netip.PrefixFrom(a, bits).Masked().Addr().As16(), uint8(bits)}
}

// accepted are leases that do not collide: no two of their subnets overlap, and
// none holds the public address of another.
type accepted struct {
	network ipfam.Pair[netip.Prefix]
	// lengths are those that the subnets of all leases have, in order.
	lengths ipfam.Pair[[]int]
	// subnets are the leases by subnet. inside has, by prefixes of these lengths,
	// the first lease with a longer subnet or a public address in them.
	subnets, inside map[prefixKey]*Lease
}

// collisions returns which leases collide with an older one, and how. In a healthy
// network there are none, and their order does not matter to find that out.
func (v *Validator) collisions(site *Site) map[*Lease]error {
	if v.seen == nil {
		v.seen, v.inside = make(map[prefixKey]*Lease, len(v.from)), map[prefixKey]*Lease{}
	}
	a := accepted{network: site.Network, lengths: lengthsOf(v.from), subnets: v.seen, inside: v.inside}
	defer a.clear()
	if !slices.ContainsFunc(v.from, func(l *Lease) bool { return a.add(l) != nil }) {
		return nil
	}
	a.clear()
	byAge := slices.Clone(v.from)
	slices.SortFunc(byAge, func(x, y *Lease) int {
		if x.Precedence.Before(y.Precedence) {
			return -1
		}
		return 1
	})
	collisions := map[*Lease]error{}
	for _, l := range byAge {
		if err := a.add(l); err != nil {
			collisions[l] = err
		}
	}
	return collisions
}

// lengthsOf returns the prefix lengths that there are among subnets.
func lengthsOf(leases []*Lease) (lengths ipfam.Pair[[]int]) {
	for _, f := range ipfam.All() {
		var there [129]bool
		for _, l := range leases {
			if s := l.Subnet[f]; s.IsValid() {
				there[s.Bits()] = true
			}
		}
		for bits, yes := range there {
			if yes {
				lengths[f] = append(lengths[f], bits)
			}
		}
	}
	return lengths
}

func (a *accepted) clear() {
	clear(a.subnets)
	clear(a.inside)
}

// add accepts a lease, or returns why it collides with one that was accepted
// before.
func (a *accepted) add(l *Lease) error {
	// Plain loops: this is done for each of thousands of peers.
	for _, f := range ipfam.All() {
		if err := a.check(f, l); err != nil {
			return err
		}
	}
	for _, f := range ipfam.All() {
		if s := l.Subnet[f]; s.IsValid() {
			a.subnets[keyOf(s.Addr(), s.Bits())] = l
			a.markInside(f, s.Addr(), s.Bits(), l)
		}
		if public := l.Attrs.PublicIP[f]; a.network[f].Contains(public) {
			a.markInside(f, public, public.BitLen()+1, l)
		}
	}
	return nil
}

func (a *accepted) check(f ipfam.Family, l *Lease) error {
	s, public := l.Subnet[f], l.Attrs.PublicIP[f]
	if s.IsValid() {
		o := a.holder(f, s.Addr(), s.Bits())
		if o == nil {
			o = a.inside[keyOf(s.Addr(), s.Bits())]
		}
		switch {
		case o != nil && o.Subnet[f].Overlaps(s):
			return fmt.Errorf("subnet %s overlaps %s of the older lease %s", s, o.Subnet[f], o.Name)
		case o != nil:
			return fmt.Errorf("subnet %s holds the public address %s of the older lease %s", s, o.Attrs.PublicIP[f], o.Name)
		}
	}
	if a.network[f].Contains(public) {
		if o := a.holder(f, public, public.BitLen()); o != nil {
			return fmt.Errorf("public address %s is inside the subnet %s of the older lease %s", public, o.Subnet[f], o.Name)
		}
	}
	return nil
}

// holder returns the lease whose subnet holds the prefix of this length, nil if
// there is none. Of two prefixes that overlap one holds the other.
func (a *accepted) holder(f ipfam.Family, addr netip.Addr, bits int) *Lease {
	for _, n := range a.lengths[f] {
		if n > bits {
			break
		}
		if o := a.subnets[keyOf(addr, n)]; o != nil {
			return o
		}
	}
	return nil
}

// markInside notes that a lease has something in the prefixes that are shorter than
// these bits.
func (a *accepted) markInside(f ipfam.Family, addr netip.Addr, bits int, l *Lease) {
	for _, n := range a.lengths[f] {
		if n >= bits {
			break
		}
		if at := keyOf(addr, n); a.inside[at] == nil {
			a.inside[at] = l
		}
	}
}
