package alloc

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"flannel/subnet"
)

// Pool is a row of subnets of one family.
type Pool struct {
	// Network holds all subnets; the zero Prefix means that there is no pool.
	Network netip.Prefix
	// Bits is the prefix length of a subnet.
	Bits int
	// Min and Max are the first and the last subnet.
	Min, Max netip.Addr
}

// maxSubnets bounds the part of a pool that is drawn from, so that a position
// fits in 64 bits.
const maxSubnets = 1 << 62

// IsOn reports whether there is a pool.
func (p Pool) IsOn() bool { return p.Network.IsValid() }

// String names the pool for people.
func (p Pool) String() string { return fmt.Sprintf("%s from %s to %s", p.Network, p.Min, p.Max) }

// Fits reports whether s is one of the pool's subnets.
func (p Pool) Fits(s netip.Prefix) bool {
	return s.IsValid() && s.Bits() == p.Bits && s == s.Masked() &&
		p.Network.Contains(s.Addr()) && !s.Addr().Less(p.Min) && !p.Max.Less(s.Addr())
}

// holds reports whether s is part of the network and not all of it.
func (p Pool) holds(s netip.Prefix) bool {
	return p.IsOn() && s.IsValid() && s.Bits() > p.Network.Bits() && p.Network.Contains(s.Addr())
}

// Draw returns a random subnet that overlaps none of used. It does not walk
// the pool, which may hold billions, but the used subnets.
func (p Pool) Draw(rnd *rand.Rand, used []netip.Prefix) (netip.Prefix, bool) {
	size := p.position(p.Max) + 1
	runs := p.runs(used, size)
	free := size
	for _, r := range runs {
		free -= r.end - r.start
	}
	if free == 0 {
		return netip.Prefix{}, false
	}
	// n counts free subnets only; each used run before it moves it on.
	n := rnd.Uint64N(free)
	for _, r := range runs {
		if n < r.start {
			break
		}
		n += r.end - r.start
	}
	return netip.PrefixFrom(subnet.Add(p.Min, n, p.Bits), p.Bits), true
}

// run is a row of positions in the pool, end excluded.
type run struct{ start, end uint64 }

// runs returns the positions that used covers, in order and without overlap.
func (p Pool) runs(used []netip.Prefix, size uint64) []run {
	var all []run
	for _, u := range used {
		if !p.holds(u) {
			continue
		}
		first, last := u.Masked().Addr(), subnet.Last(u)
		if last.Less(p.Min) {
			continue
		}
		if first.Less(p.Min) {
			first = p.Min
		}
		r := run{min(p.position(first), size), min(p.position(last)+1, size)}
		if r.start < r.end {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b run) int { return cmp.Compare(a.start, b.start) })
	merged := all[:0]
	for _, r := range all {
		if last := len(merged) - 1; last >= 0 && r.start <= merged[last].end {
			merged[last].end = max(merged[last].end, r.end)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// position returns how many subnets lie between Min and the one that holds a,
// which must not lie before Min.
func (p Pool) position(a netip.Addr) uint64 {
	return min(subnet.Distance(p.Min, a, p.Bits), maxSubnets-1)
}
