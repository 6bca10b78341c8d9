package subnet

import (
	"fmt"
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
)

// collisions returns, by name, why leases collide with an older one.
func (v *Validator) collisions(site *Site, leases []Lease) map[string]error {
	suspects := v.suspects(site, leases)
	if len(suspects) == 0 {
		return nil
	}
	slices.SortFunc(suspects, func(a, b Lease) int {
		if a.Precedence.Before(b.Precedence) {
			return -1
		}
		return 1
	})
	collisions := map[string]error{}
	var a accepted
	for i := range suspects {
		l := &suspects[i]
		if err := a.check(l); err != nil {
			collisions[l.Name] = err
			continue
		}
		a.add(l)
	}
	return collisions
}

// accepted are leases that do not collide: no two of their subnets overlap, and
// none holds the public address of another.
type accepted struct {
	// bySubnet and byAddress are in the order of subnets and public addresses.
	bySubnet, byAddress ipfam.Pair[[]*Lease]
}

func (a *accepted) add(l *Lease) {
	for f, s := range ipfam.Prefixes(l.Subnet) {
		i := a.subnetIndex(f, s)
		a.bySubnet[f] = slices.Insert(a.bySubnet[f], i, l)
	}
	for f, public := range ipfam.Addrs(l.Attrs.PublicIP) {
		i := a.addressIndex(f, public)
		a.byAddress[f] = slices.Insert(a.byAddress[f], i, l)
	}
}

// subnetIndex returns the position of a subnet.
func (a *accepted) subnetIndex(f ipfam.Family, s netip.Prefix) int {
	i, _ := slices.BinarySearchFunc(a.bySubnet[f], s, func(l *Lease, s netip.Prefix) int { return l.Subnet[f].Compare(s) })
	return i
}

// addressIndex returns the position of a public address.
func (a *accepted) addressIndex(f ipfam.Family, public netip.Addr) int {
	i, _ := slices.BinarySearchFunc(a.byAddress[f], public, func(l *Lease, a netip.Addr) int { return l.Attrs.PublicIP[f].Compare(a) })
	return i
}

// neighbours returns the leases whose subnets are next to the position of this
// one: as accepted subnets do not overlap, only these can overlap it.
func (a *accepted) neighbours(f ipfam.Family, s netip.Prefix) []*Lease {
	i := a.subnetIndex(f, s)
	return a.bySubnet[f][max(i-1, 0):min(i+1, len(a.bySubnet[f]))]
}

// check returns what of a lease collides with an accepted one, which is older.
func (a *accepted) check(l *Lease) error {
	for f, s := range ipfam.Prefixes(l.Subnet) {
		for _, o := range a.neighbours(f, s) {
			if o.Subnet[f].Overlaps(s) {
				return fmt.Errorf("subnet %s overlaps %s of the older lease %s", s, o.Subnet[f], o.Name)
			}
		}
		if i := a.addressIndex(f, s.Addr()); i < len(a.byAddress[f]) && s.Contains(a.byAddress[f][i].Attrs.PublicIP[f]) {
			o := a.byAddress[f][i]
			return fmt.Errorf("subnet %s holds the public address %s of the older lease %s", s, o.Attrs.PublicIP[f], o.Name)
		}
	}
	for f, public := range ipfam.Addrs(l.Attrs.PublicIP) {
		for _, o := range a.neighbours(f, ipfam.Host(public)) {
			if o.Subnet[f].Contains(public) {
				return fmt.Errorf("public address %s is inside the subnet %s of the older lease %s", public, o.Subnet[f], o.Name)
			}
		}
	}
	return nil
}

// suspects returns the leases that overlap another one. In a healthy network
// there are none, and finding that out is one pass without comparisons of pairs.
func (v *Validator) suspects(site *Site, leases []Lease) []Lease {
	if v.seen == nil {
		v.seen = make(map[prefixKey]int32, len(leases))
	}
	v.marked = slices.Grow(v.marked[:0], len(leases))[:len(leases)]
	clear(v.marked)
	for _, f := range ipfam.All() {
		lengths := v.markOverlaps(leases, f)
		v.markAddresses(leases, f, site.Network[f], lengths)
		clear(v.seen)
	}
	var out []Lease
	for i, m := range v.marked {
		if m {
			out = append(out, leases[i])
		}
	}
	return out
}

// prefixKey is a prefix as a map key that is cheap to hash.
type prefixKey struct {
	addr [16]byte
	bits uint8
}

func prefixKeyOf(a netip.Addr, bits int) prefixKey { return prefixKey{a.As16(), uint8(bits)} }

// mark marks lease i and the one that has this prefix already, or notes that
// lease i has it.
func (v *Validator) mark(at prefixKey, i int) {
	if j, taken := v.seen[at]; taken {
		v.marked[i], v.marked[j] = true, true
		return
	}
	v.seen[at] = int32(i)
}

// markOverlaps marks the leases whose subnets overlap in one family. Two
// prefixes overlap only when one holds the other: then the longer one, cut to
// the length of the shorter one, is the shorter one. It returns the lengths that
// there are.
func (v *Validator) markOverlaps(leases []Lease, f ipfam.Family) (lengths []int) {
	var there [129]bool
	for i := range leases {
		if s := leases[i].Subnet[f]; s.IsValid() {
			there[s.Bits()] = true
			v.mark(prefixKeyOf(s.Addr(), s.Bits()), i)
		}
	}
	for bits, yes := range there {
		if yes {
			lengths = append(lengths, bits)
		}
	}
	if len(lengths) < 2 {
		return lengths
	}
	for i := range leases {
		if s := leases[i].Subnet[f]; s.IsValid() {
			v.markHolders(s.Addr(), s.Bits(), lengths, i)
		}
	}
	return lengths
}

// markHolders marks lease i and those whose subnets hold an address and are
// shorter than these bits. lengths are in order.
func (v *Validator) markHolders(a netip.Addr, bits int, lengths []int, i int) {
	for _, n := range lengths {
		if n >= bits {
			return
		}
		if j, ok := v.seen[prefixKeyOf(netip.PrefixFrom(a, n).Masked().Addr(), n)]; ok {
			v.marked[i], v.marked[j] = true, true
		}
	}
}

// markAddresses marks the leases whose public addresses lie in the subnets of
// others, and those others.
func (v *Validator) markAddresses(leases []Lease, f ipfam.Family, network netip.Prefix, lengths []int) {
	for i := range leases {
		if a := leases[i].Attrs.PublicIP[f]; network.Contains(a) {
			v.markHolders(a, a.BitLen()+1, lengths, i)
		}
	}
}
