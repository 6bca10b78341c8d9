package etcd

import (
	"net/netip"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// self is what this node knows of itself when it looks for its records.
type self struct {
	// want is what it publishes, as far as that is known.
	want subnet.Attrs
	past published
	// prev is the subnet of an earlier run.
	prev ipfam.Pair[netip.Prefix]
}

// evidence is what connects a record with this node.
type evidence int

const (
	// blank: it cannot be decoded or names no node. Under our key it is replaced.
	blank evidence = iota
	// foreign: nothing connects it with this node. It is never overwritten.
	foreign
	// likely: under our key it is ours. Elsewhere it may be that of a node with the
	// same address.
	likely
	// sure: this node has written it, under whatever key.
	sure
)

// evidence returns what connects a record with this node. No revision counts: after
// a restore it proves nothing.
func (n self) evidence(r *record) evidence {
	a := r.lease.Attrs
	keys, ours := keysOf(a), keysOf(n.want)
	noKey := keys == ipfam.Pair[string]{}
	switch {
	case r.lease.Invalid != "":
		return blank
	case n.past.wrote(r.etcdLease), overlap(keys[:], ours[:]):
		return sure
	case !namesNode(a):
		return blank
	case noKey && a == n.want && a.BackendType != subnet.DefaultBackend:
		return sure // with udp several nodes may publish the same, from behind one address
	case overlap(a.PublicIP[:], n.want.PublicIP[:]), n.past.identifies(r):
		return likely
	}
	return foreign
}

// earlierRun reports whether an earlier run on this node has written a record: it
// is that of the subnet in subnet.env, and no other daemon is known to have
// changed it since, or it is under an etcd lease of this node.
func (n self) earlierRun(r *record) bool {
	changed := n.past.Name == r.name && r.etcdLease != clientv3.NoLease && !n.past.identifies(r)
	return n.past.wrote(r.etcdLease) || r.lease.Invalid == "" && r.lease.Subnet == n.prev && !changed
}

// knownBy reports whether a record has the address that this node is known by: the
// IPv4 one, if it has one.
func (n self) knownBy(r *record) bool {
	for f, known := range ipfam.Addrs(n.want.PublicIP) {
		return r.lease.Attrs.PublicIP[f] == known
	}
	return false
}

// namesNode reports whether a record has anything that belongs to one node.
func namesNode(a subnet.Attrs) bool {
	return a.PublicIP != ipfam.Pair[netip.Addr]{} || keysOf(a) != ipfam.Pair[string]{}
}

// keysOf returns the key material of a record in each family, empty where there is
// none.
func keysOf(a subnet.Attrs) (keys ipfam.Pair[string]) {
	for f, data := range a.Data.Each() {
		keys[f] = identity(data)
	}
	return keys
}

// maxPast bounds each list of published. A day adds one etcd lease, a start
// another.
const maxPast = 64

// published is what this node has published of itself, oldest first. It is kept in
// the state folder. Its lists are never changed.
type published struct {
	// Name is that of the record. Addresses and Keys were published in it.
	Name      string
	Addresses []netip.Addr
	Keys      []string
	// Leases are the etcd leases of the records of this node.
	Leases []clientv3.LeaseID
}

// with adds what is about to be published, and reports whether that is new.
func (p published) with(name string, a subnet.Attrs, etcdLease clientv3.LeaseID) (published, bool) {
	changed := p.Name != name
	if changed {
		p = published{Name: name, Leases: p.Leases}
	}
	for _, addr := range ipfam.Addrs(a.PublicIP) {
		p.Addresses, changed = add(p.Addresses, addr, changed)
	}
	for _, key := range keysOf(a).Each() {
		if key != "" {
			p.Keys, changed = add(p.Keys, key, changed)
		}
	}
	if etcdLease != clientv3.NoLease {
		p.Leases, changed = add(p.Leases, etcdLease, changed)
	}
	return p, changed
}

func add[T comparable](list []T, item T, changed bool) ([]T, bool) {
	if slices.Contains(list, item) {
		return list, changed
	}
	return append(slices.Clone(list[max(0, len(list)-maxPast+1):]), item), true
}

// wrote reports whether a record under this etcd lease is surely this node's.
func (p published) wrote(id clientv3.LeaseID) bool { return slices.Contains(p.Leases, id) }

// identifies reports whether a record has what only this node has published
// under its name: a key or, if the backend has none and no node has attached an
// etcd lease, an address. A former address alone may have passed to the node that
// wrote the record.
func (p published) identifies(r *record) bool {
	a := r.lease.Attrs
	if p.Name != r.name {
		return false
	}
	if keys := keysOf(a); keys != (ipfam.Pair[string]{}) {
		return overlap(keys[:], p.Keys)
	}
	return r.etcdLease == clientv3.NoLease && p.hasAddress(a.PublicIP)
}

func (p published) hasAddress(public ipfam.Pair[netip.Addr]) bool {
	return overlap(public[:], p.Addresses)
}

// overlap reports whether two lists have an item in common; what is empty does not
// count.
func overlap[T comparable](a, b []T) bool {
	var empty T
	return slices.ContainsFunc(a, func(item T) bool { return item != empty && slices.Contains(b, item) })
}

// confirmed is p for a node that starts with this subnet of an earlier run or
// with an address that it has published, else nothing: a state folder may have
// been copied to another machine with a disk.
func (p published) confirmed(public ipfam.Pair[netip.Addr], prev ipfam.Pair[netip.Prefix]) published {
	if p.Name == encodeName(prev) || p.hasAddress(public) {
		return p
	}
	return published{}
}

// identity returns what in a backend's data belongs to one node alone: the MAC
// of vxlan or the public key of wireguard.
func identity(data string) string {
	if data == "" {
		return ""
	}
	d, _ := subnet.ParseBackendData(data)
	return strings.ToLower(d.VtepMAC) + d.PublicKey
}
