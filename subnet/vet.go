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

// Vetter vets again and again in the same memory. The zero Vetter is ready; it
// is used by one caller at a time.
type Vetter struct {
	peers  []Lease
	marked []bool
	seen   map[spot]int32
}

// Vet separates the leases of other nodes that may be used from those that may
// not: records that could not be decoded, subnets outside the network or
// overlapping ours or an older claim's, public addresses that are ours or an
// older claim's. Records are hostile input; nothing else is assumed of them.
// The own lease is recognised by its subnet and is in neither result. peers is
// valid until the next call.
func (v *Vetter) Vet(network ipfam.Pair[netip.Prefix], own Lease, leases []*Lease) (peers []Lease, refused []Refusal) {
	peers = slices.Grow(v.peers[:0], len(leases))
	for _, l := range leases {
		if l.Invalid == "" && l.Subnet == own.Subnet {
			continue
		}
		if why := unusable(network, &own, l); why != "" {
			refused = append(refused, Refusal{*l, why})
			continue
		}
		peers = append(peers, *l)
	}
	// What is left of a longer run would keep leases alive.
	clear(peers[len(peers):cap(peers)])
	v.peers = peers
	losers := v.collisions(peers)
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
func unusable(network ipfam.Pair[netip.Prefix], own, l *Lease) string {
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
		if a == own.Attrs.PublicIP[f] && l.Attrs.BackendType != "udp" && !l.SameNode(own) {
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

// mayShareAddress reports whether two leases may have the same public address:
// with udp several nodes can be behind one NAT.
func mayShareAddress(a, b *Lease) bool {
	return a.Attrs.BackendType == "udp" && b.Attrs.BackendType == "udp" || a.SameNode(b)
}

// collisions names the leases that want what an older claim has.
func (v *Vetter) collisions(leases []Lease) map[string]string {
	suspects := v.suspects(leases)
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
// overlap.
type winners struct {
	// bySubnet are in the order of their subnets.
	bySubnet  ipfam.Pair[[]*Lease]
	byAddress map[netip.Addr]*Lease
}

func (w *winners) add(l *Lease) {
	if w.byAddress == nil {
		w.byAddress = map[netip.Addr]*Lease{}
	}
	for f, s := range ipfam.Prefixes(l.Subnet) {
		i, _ := w.find(f, s)
		w.bySubnet[f] = slices.Insert(w.bySubnet[f], i, l)
	}
	for _, a := range ipfam.Addrs(l.Attrs.PublicIP) {
		w.byAddress[a] = l
	}
}

// find returns where a subnet belongs.
func (w *winners) find(f ipfam.Family, s netip.Prefix) (int, bool) {
	return slices.BinarySearchFunc(w.bySubnet[f], s, func(l *Lease, s netip.Prefix) int { return l.Subnet[f].Compare(s) })
}

// refuse says what of a lease an older claim has, or nothing. As the winners'
// subnets are apart, only the two beside its place can overlap.
func (w *winners) refuse(l *Lease) string {
	for f, s := range ipfam.Prefixes(l.Subnet) {
		i, _ := w.find(f, s)
		for _, o := range w.bySubnet[f][max(i-1, 0):min(i+1, len(w.bySubnet[f]))] {
			if o.Subnet[f].Overlaps(s) {
				return fmt.Sprintf("subnet %s overlaps %s of the older claim %s", s, o.Subnet[f], o.Name)
			}
		}
	}
	for _, a := range ipfam.Addrs(l.Attrs.PublicIP) {
		if o := w.byAddress[a]; o != nil && !mayShareAddress(l, o) {
			return fmt.Sprintf("public address %s belongs to the older claim %s", a, o.Name)
		}
	}
	return ""
}

// suspects returns the leases that share something with another one. In a
// healthy network there are none, and finding that out is one pass without
// comparisons of pairs.
func (v *Vetter) suspects(leases []Lease) []Lease {
	if v.seen == nil {
		v.seen = make(map[spot]int32, len(leases))
	}
	v.marked = slices.Grow(v.marked[:0], len(leases))[:len(leases)]
	clear(v.marked)
	for _, f := range ipfam.All() {
		v.markSameAddress(leases, f)
		clear(v.seen)
		v.markOverlaps(leases, f)
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

func (v *Vetter) markSameAddress(leases []Lease, f ipfam.Family) {
	for i := range leases {
		a := leases[i].Attrs.PublicIP[f]
		if !a.IsValid() {
			continue
		}
		v.mark(spot{a.As16(), uint8(a.BitLen())}, i)
	}
}

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
// the length of the shorter one, is the shorter one.
func (v *Vetter) markOverlaps(leases []Lease, f ipfam.Family) {
	var lengths [129]bool
	different := 0
	for i := range leases {
		if s := leases[i].Subnet[f]; s.IsValid() {
			if !lengths[s.Bits()] {
				lengths[s.Bits()] = true
				different++
			}
			v.mark(spot{s.Addr().As16(), uint8(s.Bits())}, i)
		}
	}
	if different < 2 {
		return
	}
	for i := range leases {
		s := leases[i].Subnet[f]
		for bits := range max(s.Bits(), 0) {
			if !lengths[bits] {
				continue
			}
			outer := netip.PrefixFrom(s.Addr(), bits).Masked()
			if j, ok := v.seen[spot{outer.Addr().As16(), uint8(bits)}]; ok {
				v.marked[i], v.marked[j] = true, true
			}
		}
	}
}

// Uncontested reports whether lease number i may be used as it is whatever
// becomes of the others: it is sound, and no other lease, sound or not, names
// its public address or a subnet that overlaps its own.
func Uncontested(network ipfam.Pair[netip.Prefix], own Lease, leases []*Lease, i int) bool {
	l := leases[i]
	if unusable(network, &own, l) != "" {
		return false
	}
	for j, o := range leases {
		if j != i && l.touches(o) {
			return false
		}
	}
	return true
}

// touches reports whether two leases name the same public address or subnets
// that overlap.
func (l *Lease) touches(o *Lease) bool {
	for f, s := range l.Subnet {
		a := l.Attrs.PublicIP[f]
		if s.Overlaps(o.Subnet[f]) || a.IsValid() && a == o.Attrs.PublicIP[f] {
			return true
		}
	}
	return false
}
