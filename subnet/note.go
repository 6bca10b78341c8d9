package subnet

import (
	"fmt"
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
)

// Note is something unusual about a lease that is used.
type Note struct {
	Lease *Lease
	// other has the same public address; nil is this node.
	other *Lease
	kind  noteKind
	// family and usual, a prefix length, are what the note is about.
	family ipfam.Family
	usual  uint8
}

type noteKind uint8

const (
	sharedAddress noteKind = iota
	addressInside
	oddLength
)

// Family returns the family that the note is about.
func (n Note) Family() ipfam.Family { return n.family }

// String is one line for people.
func (n Note) String() string {
	a := n.Lease.Attrs.PublicIP[n.family]
	switch {
	case n.kind == addressInside:
		return fmt.Sprintf("public address %s is inside the network", a)
	case n.kind == oddLength:
		return fmt.Sprintf("subnet %s has an unusual length: usual is /%d", n.Lease.Subnet[n.family], n.usual)
	case n.other == nil:
		return fmt.Sprintf("public address %s is this node's too", a)
	}
	return fmt.Sprintf("public address %s is that of %s too", a, n.other.Name)
}

// note adds what is unusual about the peers.
func (v *Validator) note(site *Site, own *Lease, out *Validation) {
	out.Notes = slices.Grow(out.Notes, v.noted)
	for _, l := range v.from {
		out.Notes = site.oddities(out.Notes, own, l)
	}
	defer func() { v.noted = len(out.Notes) }()
	for _, f := range ipfam.All() {
		clear(v.seen)
		for _, l := range v.from {
			a := l.Attrs.PublicIP[f]
			if !a.IsValid() {
				continue
			}
			if a == own.Attrs.PublicIP[f] {
				out.share(f, l, own, nil)
			}
			at := keyOf(a, a.BitLen())
			first := v.seen[at]
			if first == nil {
				v.seen[at] = l
				continue
			}
			if !out.Shared[a] {
				out.share(f, first, l, l)
			}
			out.share(f, l, first, first)
		}
	}
	clear(v.seen)
}

// share notes that lease o has the public address of l; other is nil if that is
// this node's. With udp several nodes can be behind one NAT.
func (out *Validation) share(f ipfam.Family, l, o, other *Lease) {
	if l.SameNode(o) {
		return
	}
	a := l.Attrs.PublicIP[f]
	if out.Shared == nil {
		out.Shared = map[netip.Addr]bool{}
	}
	out.Shared[a] = true
	if l.Attrs.BackendType != "udp" || o.Attrs.BackendType != "udp" {
		out.Notes = append(out.Notes, Note{Lease: l, other: other, kind: sharedAddress, family: f})
	}
}

// oddities adds what is unusual about one lease.
func (s *Site) oddities(notes []Note, own, l *Lease) []Note {
	for _, f := range ipfam.All() {
		p, a := l.Subnet[f], l.Attrs.PublicIP[f]
		if s.Network[f].Contains(a) {
			notes = append(notes, Note{Lease: l, kind: addressInside, family: f})
		}
		if usual := s.usualBits(f, own); p.IsValid() && s.Network[f].IsValid() && usual != 0 && p.Bits() != usual {
			notes = append(notes, Note{Lease: l, kind: oddLength, family: f, usual: uint8(usual)})
		}
	}
	return notes
}
