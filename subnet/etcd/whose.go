package etcd

import (
	"net/netip"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// verdict is what a record under this node's key means to this node.
type verdict int

const (
	// nobodys cannot be decoded or names no node: it is replaced.
	nobodys verdict = iota
	// anothers is another node's: it is never overwritten.
	anothers
	// stale is this node's, but does not say what the node wants to publish.
	stale
	// current says what the node wants to publish.
	current
)

// classify says what a record that was read under this node's key, with its
// etcd lease, means to the node, which wants to publish want. No revision
// counts: after a restore it proves nothing. A record under an etcd lease of
// this node was written by it. One without key material and under the etcd
// lease of somebody else is this node's only with its present address: a former
// one may have gone to the node that wrote the record.
func classify(l *subnet.Lease, etcdLease clientv3.LeaseID, want subnet.Attrs, past published) verdict {
	switch {
	case l.Invalid != "" || !namesNode(l.Attrs):
		return nobodys
	case !past.wrote(etcdLease) && !sameNode(l.Attrs, want) && !past.named(l.Attrs, etcdLease):
		return anothers
	case !l.Attrs.Equal(want):
		return stale
	}
	return current
}

// namesNode reports whether a record says of any node that it is its.
func namesNode(a subnet.Attrs) bool {
	return a.PublicIP != ipfam.Pair[netip.Addr]{} || len(keysOf(a)) > 0
}

func keysOf(a subnet.Attrs) []string {
	var keys []string
	for _, data := range a.Data.Each() {
		if key := identity(data); key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

// maxPast bounds each list of published. A day adds one etcd lease, a start
// another.
const maxPast = 64

// published is what this node has said of itself, oldest first. It is kept in
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
	news := p.Name != name
	if news {
		p = published{Name: name, Leases: p.Leases}
	}
	for _, addr := range ipfam.Addrs(a.PublicIP) {
		p.Addresses, news = add(p.Addresses, addr, news)
	}
	for _, key := range keysOf(a) {
		p.Keys, news = add(p.Keys, key, news)
	}
	if etcdLease != clientv3.NoLease {
		p.Leases, news = add(p.Leases, etcdLease, news)
	}
	return p, news
}

func add[T comparable](list []T, item T, news bool) ([]T, bool) {
	if slices.Contains(list, item) {
		return list, news
	}
	return append(slices.Clone(list[max(0, len(list)-maxPast+1):]), item), true
}

// at is what counts for a record of this name: addresses and keys of another
// one do not.
func (p published) at(name string) published {
	if p.Name == name {
		return p
	}
	return published{Leases: p.Leases}
}

// wrote reports whether a record under this etcd lease is surely this node's.
func (p published) wrote(id clientv3.LeaseID) bool { return slices.Contains(p.Leases, id) }

// named reports whether a record carries what only this node has published
// under its name: a key, or, where the backend has none and no node has
// attached an etcd lease, an address.
func (p published) named(a subnet.Attrs, etcdLease clientv3.LeaseID) bool {
	keys := keysOf(a)
	if len(keys) > 0 {
		return slices.ContainsFunc(keys, func(key string) bool { return slices.Contains(p.Keys, key) })
	}
	return etcdLease == clientv3.NoLease && p.hasAddress(a.PublicIP)
}

func (p published) hasAddress(public ipfam.Pair[netip.Addr]) bool {
	for _, addr := range ipfam.Addrs(public) {
		if slices.Contains(p.Addresses, addr) {
			return true
		}
	}
	return false
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
