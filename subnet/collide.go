package subnet

import (
	"fmt"
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
)

// collisions names the leases that want what an older claim has.
func (v *Vetter) collisions(site *Site, leases []Lease) map[string]string {
	suspects := v.suspects(site, leases)
	if len(suspects) == 0 {
		return nil
	}
	slices.SortFunc(suspects, func(a, b Lease) int {
		if a.Claim.Before(b.Claim) {
			return -1
		}
		return 1
	})
	losers := map[string]string{}
	var w winners
	for i := range suspects {
		l := &suspects[i]
		if why := w.refuse(l); why != "" {
			losers[l.Name] = why
			continue
		}
		w.add(l)
	}
	return losers
}

// winners are leases that have got what they claim; no two of their subnets
// overlap, and none holds the address of another.
type winners struct {
	// bySubnet and byAddress are in the order of subnets and public addresses.
	bySubnet, byAddress ipfam.Pair[[]*Lease]
}

func (w *winners) add(l *Lease) {
	for f, s := range ipfam.Prefixes(l.Subnet) {
		i := w.place(f, s)
		w.bySubnet[f] = slices.Insert(w.bySubnet[f], i, l)
	}
	for f, a := range ipfam.Addrs(l.Attrs.PublicIP) {
		i := w.addressPlace(f, a)
		w.byAddress[f] = slices.Insert(w.byAddress[f], i, l)
	}
}

// place returns where a subnet belongs.
func (w *winners) place(f ipfam.Family, s netip.Prefix) int {
	i, _ := slices.BinarySearchFunc(w.bySubnet[f], s, func(l *Lease, s netip.Prefix) int { return l.Subnet[f].Compare(s) })
	return i
}

// addressPlace returns where a public address belongs.
func (w *winners) addressPlace(f ipfam.Family, a netip.Addr) int {
	i, _ := slices.BinarySearchFunc(w.byAddress[f], a, func(l *Lease, a netip.Addr) int { return l.Attrs.PublicIP[f].Compare(a) })
	return i
}

// beside returns the winners whose subnets stand next to the place of this one:
// as the winners' subnets are apart, only these can overlap it.
func (w *winners) beside(f ipfam.Family, s netip.Prefix) []*Lease {
	i := w.place(f, s)
	return w.bySubnet[f][max(i-1, 0):min(i+1, len(w.bySubnet[f]))]
}

// refuse says what of a lease an older claim has, or nothing.
func (w *winners) refuse(l *Lease) string {
	for f, s := range ipfam.Prefixes(l.Subnet) {
		for _, o := range w.beside(f, s) {
			if o.Subnet[f].Overlaps(s) {
				return fmt.Sprintf("subnet %s overlaps %s of the older claim %s", s, o.Subnet[f], o.Name)
			}
		}
		if i := w.addressPlace(f, s.Addr()); i < len(w.byAddress[f]) && s.Contains(w.byAddress[f][i].Attrs.PublicIP[f]) {
			o := w.byAddress[f][i]
			return fmt.Sprintf("subnet %s holds the public address %s of the older claim %s", s, o.Attrs.PublicIP[f], o.Name)
		}
	}
	for f, a := range ipfam.Addrs(l.Attrs.PublicIP) {
		for _, o := range w.beside(f, ipfam.Host(a)) {
			if o.Subnet[f].Contains(a) {
				return fmt.Sprintf("public address %s is inside the subnet %s of the older claim %s", a, o.Subnet[f], o.Name)
			}
		}
	}
	return ""
}

// suspects returns the leases that share something with another one. In a
// healthy network there are none, and finding that out is one pass without
// comparisons of pairs.
func (v *Vetter) suspects(site *Site, leases []Lease) []Lease {
	if v.seen == nil {
		v.seen = make(map[spot]int32, len(leases))
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

// spot is a prefix as a key that is cheap to hash.
type spot struct {
	addr [16]byte
	bits uint8
}

func spotOf(a netip.Addr, bits int) spot { return spot{a.As16(), uint8(bits)} }

// mark marks both who is at this spot already and lease i, or puts i there.
func (v *Vetter) mark(at spot, i int) {
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
func (v *Vetter) markOverlaps(leases []Lease, f ipfam.Family) (lengths []int) {
	var there [129]bool
	for i := range leases {
		if s := leases[i].Subnet[f]; s.IsValid() {
			there[s.Bits()] = true
			v.mark(spotOf(s.Addr(), s.Bits()), i)
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
func (v *Vetter) markHolders(a netip.Addr, bits int, lengths []int, i int) {
	for _, n := range lengths {
		if n >= bits {
			return
		}
		if j, ok := v.seen[spotOf(netip.PrefixFrom(a, n).Masked().Addr(), n)]; ok {
			v.marked[i], v.marked[j] = true, true
		}
	}
}

// markAddresses marks the leases whose public addresses lie in the subnets of
// others, and those others.
func (v *Vetter) markAddresses(leases []Lease, f ipfam.Family, network netip.Prefix, lengths []int) {
	for i := range leases {
		if a := leases[i].Attrs.PublicIP[f]; network.Contains(a) {
			v.markHolders(a, a.BitLen()+1, lengths, i)
		}
	}
}
