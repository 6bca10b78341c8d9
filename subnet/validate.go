package subnet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
)

// Site describes this host: it decides which leases of other nodes may be used.
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

// Rejection is a lease that must not be used, and why.
type Rejection struct {
	Lease Lease
	Err   error
}

// Validation holds which leases of other nodes may be used.
type Validation struct {
	// Peers are valid until the next call.
	Peers    []Lease
	Rejected []Rejection
	// Notes are about leases that are used.
	Notes []Note
	// Shared are the public addresses that several of the peers, or a peer and
	// this node, have.
	Shared map[netip.Addr]bool
}

// Validator validates leases again and again in the same memory. The zero
// Validator is ready; it is used by one caller at a time.
type Validator struct {
	peers []Lease
	from  []*Lease
	// seen and inside are empty between two uses.
	seen, inside map[prefixKey]*Lease
	noted        int // the notes of the last time
}

// Validate separates the leases of other nodes that may be used from those that
// may not: records that could not be decoded; subnets that are outside the
// network, overlap ours or an older lease's, are much too large or hold an
// address that this host reaches elsewhere; public addresses that no other host
// can have or that lie in a subnet. Records are hostile input; nothing else is
// assumed of them. Those of this node are in neither result.
func (v *Validator) Validate(site *Site, own *Lease, leases []*Lease) Validation {
	var out Validation
	v.peers, v.from = slices.Grow(v.peers[:0], len(leases)), slices.Grow(v.from[:0], len(leases))
	for _, l := range leases {
		if site.isOwn(own, l) {
			continue
		}
		if err := site.check(own, l); err != nil {
			out.Rejected = append(out.Rejected, Rejection{*l, err})
			continue
		}
		v.keep(l)
	}
	if collisions := v.collisions(site); len(collisions) > 0 {
		all := v.from
		v.peers, v.from = v.peers[:0], v.from[:0]
		for _, l := range all {
			if err := collisions[l]; err != nil {
				out.Rejected = append(out.Rejected, Rejection{*l, err})
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

func (v *Validator) keep(l *Lease) {
	v.peers, v.from = append(v.peers, *l), append(v.from, l)
}

// isOwn reports whether a lease is this node's: it has our subnet or the name of
// our Node, or the attributes that we publish, with a key of ours or an address
// of this host. Ours may have another subnet for a moment, before or after it
// changes.
func (s *Site) isOwn(own, l *Lease) bool {
	if l.Invalid != "" {
		return false
	}
	if l.Subnet == own.Subnet || l.Name == own.Name && own.Name != "" {
		return true
	}
	keyed := l.Attrs.Data != (ipfam.Pair[string]{})
	return l.Attrs.PublicIP == own.Attrs.PublicIP && (keyed || slices.ContainsFunc(ipfam.List(own.Attrs.PublicIP), s.isLocal)) && l.Attrs == own.Attrs
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

// check returns why a lease cannot be used whatever the other peers are.
func (s *Site) check(own, l *Lease) error {
	if l.Invalid != "" {
		return errors.New(l.Invalid)
	}
	usable := false
	// Plain loops: this is done for each of thousands of peers.
	for _, f := range ipfam.All() {
		p := l.Subnet[f]
		if !p.IsValid() || !s.Network[f].IsValid() {
			continue // a family that is off here or there
		}
		if err := s.checkSubnet(f, own, p); err != nil {
			return err
		}
		usable = true
	}
	if !usable {
		return errors.New("no subnet in an enabled family")
	}
	if l.Attrs.PublicIP == (ipfam.Pair[netip.Addr]{}) {
		return errors.New("no public address")
	}
	for _, f := range ipfam.All() {
		a := l.Attrs.PublicIP[f]
		if !a.IsValid() || !s.Network[f].IsValid() {
			continue
		}
		if err := s.checkPublicIP(f, own, l, a); err != nil {
			return err
		}
	}
	return nil
}

func (s *Site) checkSubnet(f ipfam.Family, own *Lease, p netip.Prefix) error {
	ours, public := own.Subnet[f], own.Attrs.PublicIP[f]
	switch usual := s.usualBits(f, own); {
	case !inside(s.Network[f], p):
		return fmt.Errorf("subnet %s is outside the network %s", p, s.Network[f])
	case ours.IsValid() && ours.Overlaps(p):
		return fmt.Errorf("subnet %s overlaps this node's %s", p, ours)
	case p.Bits() < usual-shorterBits:
		return fmt.Errorf("subnet %s is too large: usual is /%d", p, usual)
	case p.Contains(public):
		return fmt.Errorf("subnet %s holds this node's public address %s", p, public)
	}
	i, _ := slices.BinarySearchFunc(s.Reserved, p.Addr(), func(r Reserved, a netip.Addr) int { return r.Addr.Compare(a) })
	if i < len(s.Reserved) && p.Contains(s.Reserved[i].Addr) {
		return fmt.Errorf("subnet %s holds %s", p, s.Reserved[i].What)
	}
	return nil
}

// inside reports whether s is a proper part of net.
func inside(net, s netip.Prefix) bool {
	return s.Bits() > net.Bits() && net.Contains(s.Addr())
}

func (s *Site) checkPublicIP(f ipfam.Family, own, l *Lease, a netip.Addr) error {
	switch {
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("public address %s cannot be a host's", a)
	case l.Subnet[f].Contains(a):
		return fmt.Errorf("public address %s is inside its own subnet %s", a, l.Subnet[f])
	case own.Subnet[f].Contains(a):
		return fmt.Errorf("public address %s is inside this node's subnet %s", a, own.Subnet[f])
	case s.isLocal(a):
		return fmt.Errorf("public address %s is on an interface of this host", a)
	}
	return nil
}
