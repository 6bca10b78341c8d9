// Package alloc picks a free subnet for a node.
package alloc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// ErrFull is the error of a family without a free subnet.
var ErrFull = errors.New("no free subnet")

// Pools are the subnets that nodes get, one pool per family that is on.
type Pools ipfam.Pair[Pool]

// Of returns the pools of a network configuration.
func Of(c *subnet.Config) Pools {
	var p Pools
	for f, network := range ipfam.Prefixes(c.Network) {
		p[f] = Pool{Network: network, Bits: c.SubnetLen[f], Min: c.SubnetMin[f], Max: c.SubnetMax[f]}
	}
	return p
}

// Fit reports whether subnets could be given to a node: one of each pool, and
// none of a family that is off.
func (p Pools) Fit(subnets ipfam.Pair[netip.Prefix]) bool {
	for f, s := range subnets.Each() {
		if s.IsValid() != p[f].IsOn() || s.IsValid() && !p[f].Fits(s) {
			return false
		}
	}
	return true
}

// Overlap reports whether a node that has b keeps another from having a. What
// lies outside the pools, or is as large as a network, keeps nobody from
// anything.
func (p Pools) Overlap(a, b ipfam.Pair[netip.Prefix]) bool {
	for f, s := range ipfam.Prefixes(a) {
		if p[f].holds(b[f]) && s.Overlaps(b[f]) {
			return true
		}
	}
	return false
}

// Choose returns one subnet of each pool that none of used keeps a node from. In each
// family that is the first of prefer that could be given, else one drawn at
// random, each free one with the same chance. The error is ErrFull.
func (p Pools) Choose(prefer, used []ipfam.Pair[netip.Prefix], rnd *rand.Rand) (ipfam.Pair[netip.Prefix], error) {
	var chosen ipfam.Pair[netip.Prefix]
	for f, pool := range ipfam.Pair[Pool](p).Each() {
		if !pool.IsOn() {
			continue
		}
		taken := family(used, f)
		if s, ok := firstFree(pool, family(prefer, f), taken); ok {
			chosen[f] = s
			continue
		}
		s, ok := pool.Draw(rnd, taken)
		if !ok {
			return ipfam.Pair[netip.Prefix]{}, fmt.Errorf("%w in %s", ErrFull, pool)
		}
		chosen[f] = s
	}
	return chosen, nil
}

func family(subnets []ipfam.Pair[netip.Prefix], f ipfam.Family) []netip.Prefix {
	var of []netip.Prefix
	for _, s := range subnets {
		if s[f].IsValid() {
			of = append(of, s[f])
		}
	}
	return of
}

func firstFree(pool Pool, prefer, taken []netip.Prefix) (netip.Prefix, bool) {
	for _, s := range prefer {
		overlaps := func(o netip.Prefix) bool { return pool.holds(o) && s.Overlaps(o) }
		if pool.Fits(s) && !slices.ContainsFunc(taken, overlaps) {
			return s, true
		}
	}
	return netip.Prefix{}, false
}
