// Package subnet defines what a lease is and what a store of leases must do.
package subnet

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"flannel/internal/ipfam"
)

// Lease is the subnet of a node, and how that node is reached. As JSON it stands in
// the state folder.
type Lease struct {
	// Name is what an operator looks the record up by: the last element of
	// the etcd key, or the name of the Node.
	Name string `json:"name"`
	// Subnet is the node's subnet in each family; an absent family is the
	// zero Prefix.
	Subnet ipfam.Pair[netip.Prefix] `json:"subnet"`
	Attrs  Attrs                    `json:"attrs"`
	// Expires is when the store drops the lease; zero means never or unknown.
	// It is known only for this node's lease.
	Expires time.Time `json:"expires,omitzero"`
	// Precedence decides between two leases that collide.
	Precedence Precedence `json:"claim"`
	// Invalid describes what is wrong with a record that could not be decoded.
	// The other fields then hold what could be read. Such a lease is never
	// used; it is listed so that people can see it.
	Invalid string `json:"-"`
}

// Attrs is what other nodes need to know to reach a node.
type Attrs struct {
	// BackendType is the backend in lower case; an empty type in a record is
	// read as "udp".
	BackendType string `json:"type"`
	// Untyped is true if the record itself names no backend, as those of
	// flannel's udp backend do.
	Untyped  bool                   `json:"untyped,omitempty"`
	PublicIP ipfam.Pair[netip.Addr] `json:"public"`
	// Data is what the backend publishes, one JSON text per family; empty if
	// the backend has none.
	Data ipfam.Pair[string] `json:"data"`
}

// A record is hostile input: real names are far shorter, and have no other runes.
const (
	maxType   = 32
	typeRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
)

// SetBackendType takes in the name of a backend as it stands in a record.
func (a *Attrs) SetBackendType(name string) error {
	if len(name) > maxType || strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(typeRunes, r) }) {
		return errors.New("not a name")
	}
	a.BackendType, a.Untyped = strings.ToLower(cmp.Or(name, DefaultBackend)), name == ""
	return nil
}

// Precedence orders leases by age. Of two leases that collide the older one is
// used.
type Precedence struct {
	// Grace marks a lease that is kept for a while although its record is
	// gone; any live lease takes precedence over it.
	Grace bool
	// Age is lower for an older record: etcd's create revision, or the Node's
	// creation time in nanoseconds.
	Age int64
	// Name decides between equal ages.
	Name string
}

// Before reports whether a lease with p takes precedence over one with o.
func (p Precedence) Before(o Precedence) bool {
	if p.Grace != o.Grace {
		return o.Grace
	}
	if p.Age != o.Age {
		return p.Age < o.Age
	}
	return p.Name < o.Name
}

// SameNode reports whether two leases are surely of one node: their attributes
// are the same, and one of them is only kept in grace. That happens when an older
// state of the store was restored. Two live ones are a collision.
func (l *Lease) SameNode(o *Lease) bool {
	return l.Precedence.Grace != o.Precedence.Grace && l.Attrs == o.Attrs
}

// Equal reports whether two leases are the same to a backend. Expires does not
// count.
func (l Lease) Equal(o Lease) bool {
	return l.Name == o.Name && l.Subnet == o.Subnet && l.Precedence == o.Precedence &&
		l.Invalid == o.Invalid && l.Attrs == o.Attrs
}

// EqualLeases reports whether two lists hold equal leases in the same order.
func EqualLeases(a, b []*Lease) bool {
	return slices.EqualFunc(a, b, func(l, o *Lease) bool { return l == o || l.Equal(*o) })
}
