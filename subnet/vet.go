package subnet

import (
	"fmt"
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
)

// Site is what of this host decides which records of others may be used.
type Site struct {
	Network ipfam.Pair[netip.Prefix]
	// Bits is the usual prefix length of a subnet; zero means that of this
	// node's subnet.
	Bits ipfam.Pair[int]
	// Local are the addresses of this host's interfaces, in order.
	Local []netip.Addr
	// Reserved are the addresses, in order, that this host does not reach
	// through the overlay.
	Reserved []Reserved
}

// Reserved is an address that no peer's subnet may hold, and what it is.
type Reserved struct {
	Addr netip.Addr
	What string
}

// shorterBits is by how many bits a subnet may be shorter than is usual: more
// would take over a large part of the network.
const shorterBits = 4

// Refusal is a lease that must not be used, and why.
type Refusal struct {
	Lease Lease
	Why   string
}

// Verdict says which leases of other nodes may be used.
type Verdict struct {
	// Peers are valid until the next call.
	Peers   []Lease
	Refused []Refusal
	// Notes are about leases that are used.
	Notes []Note
	// Shared are the public addresses that several of the peers, or a peer and
	// this node, have.
	Shared map[netip.Addr]bool
}

// Vetter vets again and again in the same memory. The zero Vetter is ready; it
// is used by one caller at a time.
type Vetter struct {
	peers  []Lease
	from   []*Lease
	marked []bool
	seen   map[spot]int32
	noted  int // the notes of the last time
}

// Vet separates the leases of other nodes that may be used from those that may
// not: records that could not be decoded; subnets that are outside the network,
// overlap ours or an older claim's, are much too large or hold an address that
// this host reaches elsewhere; public addresses that no other host can have or
// that lie in a subnet. Records are hostile input; nothing else is assumed of
// them. Those of this node are in neither result.
func (v *Vetter) Vet(site *Site, own *Lease, leases []*Lease) Verdict {
	var out Verdict
	v.peers, v.from = slices.Grow(v.peers[:0], len(leases)), slices.Grow(v.from[:0], len(leases))
	for _, l := range leases {
		if site.isOwn(own, l) {
			continue
		}
		if why := site.unusable(own, l); why != "" {
			out.Refused = append(out.Refused, Refusal{*l, why})
			continue
		}
		v.keep(l)
	}
	if losers := v.collisions(site, v.peers); len(losers) > 0 {
		all := v.from
		v.peers, v.from = v.peers[:0], v.from[:0]
		for _, l := range all {
			if why := losers[l.Name]; why != "" {
				out.Refused = append(out.Refused, Refusal{*l, why})
				continue
			}
			v.keep(l)
		}
	}
	// What is left of a longer run would keep leases alive.
	clear(v.peers[len(v.peers):cap(v.peers)])
	clear(v.from[len(v.from):cap(v.from)])
	out.Peers = v.peers
	v.note(site, own, &out)
	return out
}

func (v *Vetter) keep(l *Lease) {
	v.peers, v.from = append(v.peers, *l), append(v.from, l)
}

// isOwn reports whether a record is this node's: it names our subnet or our
// Node, or says what we say, with a key of ours or an address of this host. Ours
// may be under another subnet for a moment, before or after it changes.
func (s *Site) isOwn(own, l *Lease) bool {
	if l.Invalid != "" {
		return false
	}
	if l.Subnet == own.Subnet || l.Name == own.Name && own.Name != "" {
		return true
	}
	keyed := l.Attrs.Data[ipfam.V4] != nil || l.Attrs.Data[ipfam.V6] != nil
	return l.Attrs.PublicIP == own.Attrs.PublicIP && (keyed || s.hasLocal(l)) && l.Attrs.Equal(own.Attrs)
}

// hasLocal reports whether an interface of this host has a public address of a
// lease.
func (s *Site) hasLocal(l *Lease) bool {
	for _, a := range ipfam.Addrs(l.Attrs.PublicIP) {
		if s.isLocal(a) {
			return true
		}
	}
	return false
}

func (s *Site) isLocal(a netip.Addr) bool {
	_, local := slices.BinarySearchFunc(s.Local, a, netip.Addr.Compare)
	return local
}

// usualBits returns the prefix length that subnets have.
func (s *Site) usualBits(f ipfam.Family, own *Lease) int {
	if s.Bits[f] != 0 {
		return s.Bits[f]
	}
	return max(own.Subnet[f].Bits(), 0)
}

// unusable says why a lease cannot be used whatever the other peers are.
func (s *Site) unusable(own, l *Lease) string {
	if l.Invalid != "" {
		return l.Invalid
	}
	usable := false
	// Plain loops: this is done for each of thousands of peers.
	for _, f := range ipfam.All() {
		p := l.Subnet[f]
		if !p.IsValid() || !s.Network[f].IsValid() {
			continue // a family that is off here or there
		}
		if why := s.badSubnet(f, own, p); why != "" {
			return why
		}
		usable = true
	}
	if !usable {
		return "no subnet in a family that is on"
	}
	if l.Attrs.PublicIP == (ipfam.Pair[netip.Addr]{}) {
		return "no public address"
	}
	for _, f := range ipfam.All() {
		a := l.Attrs.PublicIP[f]
		if !a.IsValid() || !s.Network[f].IsValid() {
			continue
		}
		if why := s.badPublicIP(f, own, l, a); why != "" {
			return why
		}
	}
	return ""
}

func (s *Site) badSubnet(f ipfam.Family, own *Lease, p netip.Prefix) string {
	mine, public := own.Subnet[f], own.Attrs.PublicIP[f]
	switch usual := s.usualBits(f, own); {
	case !inside(s.Network[f], p):
		return fmt.Sprintf("subnet %s is outside the network %s", p, s.Network[f])
	case mine.IsValid() && mine.Overlaps(p):
		return fmt.Sprintf("subnet %s overlaps this node's %s", p, mine)
	case p.Bits() < usual-shorterBits:
		return fmt.Sprintf("subnet %s is too large: usual is /%d", p, usual)
	case p.Contains(public):
		return fmt.Sprintf("subnet %s holds this node's public address %s", p, public)
	}
	i, _ := slices.BinarySearchFunc(s.Reserved, p.Addr(), func(r Reserved, a netip.Addr) int { return r.Addr.Compare(a) })
	if i < len(s.Reserved) && p.Contains(s.Reserved[i].Addr) {
		return fmt.Sprintf("subnet %s holds %s", p, s.Reserved[i].What)
	}
	return ""
}

// inside reports whether s is a proper part of net.
func inside(net, s netip.Prefix) bool {
	return s.Bits() > net.Bits() && net.Contains(s.Addr())
}

func (s *Site) badPublicIP(f ipfam.Family, own, l *Lease, a netip.Addr) string {
	switch {
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Sprintf("public address %s cannot be a host's", a)
	case l.Subnet[f].Contains(a):
		return fmt.Sprintf("public address %s is inside its own subnet %s", a, l.Subnet[f])
	case own.Subnet[f].Contains(a):
		return fmt.Sprintf("public address %s is inside this node's subnet %s", a, own.Subnet[f])
	case s.isLocal(a):
		return fmt.Sprintf("public address %s is on an interface of this host", a)
	}
	return ""
}
