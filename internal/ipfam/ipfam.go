// Package ipfam lets IPv4 and IPv6 share code: one loop over the families
// instead of a twin of every function.
package ipfam

import (
	"iter"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Family is an IP version. Its value is an index into a Pair.
type Family uint8

// The families, in the order in which they are always visited.
const (
	V4 Family = iota
	V6
)

// All lists the families in the order in which they are always visited.
func All() [2]Family { return [2]Family{V4, V6} }

// Of returns the family of an address; an IPv4-mapped IPv6 address counts as IPv4.
func Of(a netip.Addr) Family {
	if a.Unmap().Is4() {
		return V4
	}
	return V6
}

// String returns "ipv4" or "ipv6".
func (f Family) String() string {
	if f == V4 {
		return "ipv4"
	}
	return "ipv6"
}

// Name returns "IPv4" or "IPv6", for people.
func (f Family) Name() string { return Pair[string]{"IPv4", "IPv6"}[f] }

// Bits returns the length of an address in bits: 32 or 128.
func (f Family) Bits() int {
	if f == V4 {
		return 32
	}
	return 128
}

// AF returns the address family as the kernel numbers it.
func (f Family) AF() int {
	if f == V4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// Pair holds one value per family, indexed by Family. A family that is off or
// unknown holds the zero value of T.
type Pair[T any] [2]T

// Each visits both halves of the pair.
func (p Pair[T]) Each() iter.Seq2[Family, T] {
	return func(yield func(Family, T) bool) {
		for _, f := range All() {
			if !yield(f, p[f]) {
				return
			}
		}
	}
}

// Prefixes visits the families whose prefix is valid.
func Prefixes(p Pair[netip.Prefix]) iter.Seq2[Family, netip.Prefix] {
	return valid(p)
}

// Addrs visits the families whose address is valid.
func Addrs(p Pair[netip.Addr]) iter.Seq2[Family, netip.Addr] {
	return valid(p)
}

// Join returns the valid values of both families as text, separated by a comma.
func Join[T value](p Pair[T]) string {
	var parts []string
	for _, v := range List(p) {
		parts = append(parts, v.String())
	}
	return strings.Join(parts, ",")
}

// List returns the valid values of both families. It is never nil.
func List[T value](p Pair[T]) []T {
	list := make([]T, 0, len(p))
	for _, v := range valid(p) {
		list = append(list, v)
	}
	return list
}

// Enabled reports which families have a valid value.
func Enabled[T value](p Pair[T]) Pair[bool] {
	return Pair[bool]{p[V4].IsValid(), p[V6].IsValid()}
}

// value is a prefix or an address.
type value interface {
	IsValid() bool
	String() string
}

func valid[T value](p Pair[T]) iter.Seq2[Family, T] {
	return func(yield func(Family, T) bool) {
		for f, v := range p.Each() {
			if v.IsValid() && !yield(f, v) {
				return
			}
		}
	}
}

// Within reports whether a prefix lies in a network or is all of it.
func Within(network, p netip.Prefix) bool {
	return network.Bits() <= p.Bits() && network.Contains(p.Addr())
}

// WithinAny reports whether a prefix lies in one of the networks.
func WithinAny(networks []netip.Prefix, p netip.Prefix) bool {
	for _, n := range networks {
		if Within(n, p) {
			return true
		}
	}
	return false
}

// Host returns the prefix that holds only this address: /32 or /128.
func Host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
