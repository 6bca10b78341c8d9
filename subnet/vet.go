package subnet

import (
	"fmt"
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
)

// Refusal is a lease that must not be used, and why.
type Refusal struct {
	Lease Lease
	Why   string
}

// Vet separates the leases of other nodes that may be used from those that may
// not: records that could not be decoded, subnets outside the network or
// overlapping ours or an older claim's, public addresses that are ours or an
// older claim's. Records are hostile input; nothing else is assumed of them.
// The own lease is recognised by its subnet and is in neither result.
func Vet(network ipfam.Pair[netip.Prefix], own Lease, leases []Lease) (peers []Lease, refused []Refusal) {
	peers = make([]Lease, 0, len(leases))
	for _, l := range leases {
		if l.Invalid == "" && l.Subnet == own.Subnet {
			continue
		}
		if why := unusable(network, own, l); why != "" {
			refused = append(refused, Refusal{l, why})
			continue
		}
		peers = append(peers, l)
	}
	losers := collisions(peers)
	if len(losers) == 0 {
		return peers, refused
	}
	kept := peers[:0]
	for _, l := range peers {
		if why := losers[l.Name]; why != "" {
			refused = append(refused, Refusal{l, why})
			continue
		}
		kept = append(kept, l)
	}
	return kept, refused
}

// unusable says why a lease cannot be used whatever the other peers are.
func unusable(network ipfam.Pair[netip.Prefix], own, l Lease) string {
	if l.Invalid != "" {
		return l.Invalid
	}
	usable := false
	for f, s := range ipfam.Prefixes(l.Subnet) {
		switch net := network[f]; {
		case !net.IsValid():
			continue // a family that is off here
		case !inside(net, s):
			return fmt.Sprintf("subnet %s is outside the network %s", s, net)
		case own.Subnet[f].IsValid() && own.Subnet[f].Overlaps(s):
			return fmt.Sprintf("subnet %s overlaps this node's %s", s, own.Subnet[f])
		}
		usable = true
	}
	if !usable {
		return "no subnet in a family that is on"
	}
	if l.Attrs.PublicIP == (ipfam.Pair[netip.Addr]{}) {
		return "no public address"
	}
	for f, a := range ipfam.Addrs(l.Attrs.PublicIP) {
		if why := badPublicIP(a); why != "" {
			return why
		}
		if a == own.Attrs.PublicIP[f] && !mayShareAddress(l) {
			return fmt.Sprintf("public address %s is this node's", a)
		}
	}
	return ""
}

// inside reports whether s is a proper part of net.
func inside(net, s netip.Prefix) bool {
	return s.Bits() > net.Bits() && net.Contains(s.Addr())
}

func badPublicIP(a netip.Addr) string {
	if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Sprintf("public address %s cannot be a host's", a)
	}
	return ""
}

// mayShareAddress reports whether several nodes may have this node's public
// address: with udp they can be behind one NAT.
func mayShareAddress(l Lease) bool { return l.Attrs.BackendType == "udp" }

// collisions names the leases that want what an older claim has.
func collisions(leases []Lease) map[string]string {
	suspects := suspects(leases)
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
	var winners []Lease
	for _, l := range suspects {
		if why := collides(l, winners); why != "" {
			losers[l.Name] = why
			continue
		}
		winners = append(winners, l)
	}
	return losers
}

func collides(l Lease, older []Lease) string {
	for _, o := range older {
		for f, s := range ipfam.Prefixes(l.Subnet) {
			if o.Subnet[f].IsValid() && o.Subnet[f].Overlaps(s) {
				return fmt.Sprintf("subnet %s overlaps %s of the older claim %s", s, o.Subnet[f], o.Name)
			}
		}
		for f, a := range ipfam.Addrs(l.Attrs.PublicIP) {
			if a == o.Attrs.PublicIP[f] && !(mayShareAddress(l) && mayShareAddress(o)) {
				return fmt.Sprintf("public address %s belongs to the older claim %s", a, o.Name)
			}
		}
	}
	return ""
}

// suspects returns the leases that share something with another one. In a
// healthy network there are none, and finding that out is one pass without
// comparisons of pairs.
func suspects(leases []Lease) []Lease {
	marked := make([]bool, len(leases))
	seen := make(map[spot]int, len(leases))
	for _, f := range ipfam.All() {
		markSameAddress(leases, f, marked, seen)
		clear(seen)
		markOverlaps(leases, f, marked, seen)
		clear(seen)
	}
	var out []Lease
	for i, m := range marked {
		if m {
			out = append(out, leases[i])
		}
	}
	return out
}

// spot is a prefix as a key that is cheap to hash.
type spot struct {
	addr [16]byte
	bits int
}

func markSameAddress(leases []Lease, f ipfam.Family, marked []bool, seen map[spot]int) {
	for i := range leases {
		a := leases[i].Attrs.PublicIP[f]
		if !a.IsValid() {
			continue
		}
		mark(spot{a.As16(), a.BitLen()}, i, marked, seen)
	}
}

// mark marks both who is at this spot already and lease i, or puts i there.
func mark(at spot, i int, marked []bool, seen map[spot]int) {
	if j, taken := seen[at]; taken {
		marked[i], marked[j] = true, true
		return
	}
	seen[at] = i
}

// markOverlaps marks the leases whose subnets overlap in one family. Two
// prefixes overlap only when one holds the other: then the longer one, cut to
// the length of the shorter one, is the shorter one.
func markOverlaps(leases []Lease, f ipfam.Family, marked []bool, seen map[spot]int) {
	var lengths [129]bool
	for i := range leases {
		if s := leases[i].Subnet[f]; s.IsValid() {
			lengths[s.Bits()] = true
			mark(spot{s.Addr().As16(), s.Bits()}, i, marked, seen)
		}
	}
	for i := range leases {
		s := leases[i].Subnet[f]
		for bits := range max(s.Bits(), 0) {
			if !lengths[bits] {
				continue
			}
			outer := netip.PrefixFrom(s.Addr(), bits).Masked()
			if j, ok := seen[spot{outer.Addr().As16(), bits}]; ok {
				marked[i], marked[j] = true, true
			}
		}
	}
}
