package etcd

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// ownership is whose record is stored under this node's key.
type ownership int

const (
	// unowned cannot be decoded or names no node: it is replaced.
	unowned ownership = iota
	// foreign is another node's: it is never overwritten.
	foreign
	// outdated is this node's, but not what the node wants to publish.
	outdated
	// current is what the node wants to publish.
	current
)

// classify returns whose a record is that was read under the key of a node that
// wants to publish want. No revision counts: after a restore it proves nothing. A
// record under an etcd lease of this node was written by it. One without key
// material and under the etcd lease of somebody else is this node's only with its
// present address: a former one may have passed to the node that wrote the record.
func classify(r *record, want subnet.Attrs, past published) ownership {
	a := r.lease.Attrs
	switch {
	case r.lease.Invalid != "" || !namesNode(a):
		return unowned
	case !past.wrote(r.etcdLease) && !sameNode(a, want) && !past.identifies(a, r.etcdLease):
		return foreign
	case a != want:
		return outdated
	}
	return current
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

// forName is what counts for a record of this name: addresses and keys of another
// one do not.
func (p published) forName(name string) published {
	if p.Name == name {
		return p
	}
	return published{Leases: p.Leases}
}

// wrote reports whether a record under this etcd lease is surely this node's.
func (p published) wrote(id clientv3.LeaseID) bool { return slices.Contains(p.Leases, id) }

// identifies reports whether a record has what only this node has published
// under its name: a key or, if the backend has none and no node has attached an
// etcd lease, an address.
func (p published) identifies(a subnet.Attrs, etcdLease clientv3.LeaseID) bool {
	if keys := keysOf(a); keys != (ipfam.Pair[string]{}) {
		return overlap(keys[:], p.Keys)
	}
	return etcdLease == clientv3.NoLease && p.hasAddress(a.PublicIP)
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

// sameNode reports whether two records were published by one node: they share
// a public address or the key material of the device.
func sameNode(a, b subnet.Attrs) bool {
	keysA, keysB := keysOf(a), keysOf(b)
	return overlap(a.PublicIP[:], b.PublicIP[:]) || overlap(keysA[:], keysB[:])
}

// identity returns what in a backend's data belongs to one node alone: the MAC
// of vxlan or the public key of wireguard.
func identity(data string) string {
	if mac, ok := usualMAC(data); ok || data == "" {
		return mac
	}
	var id struct{ VtepMAC, PublicKey string }
	if json.Unmarshal([]byte(data), &id) != nil {
		return ""
	}
	return strings.ToLower(id.VtepMAC) + id.PublicKey
}

// usualMAC reads the text that every node with vxlan writes, without a general
// parser: at the start each record is compared with this node's.
func usualMAC(data string) (string, bool) {
	rest, ok := strings.CutPrefix(data, `{"VNI":`)
	if !ok {
		return "", false
	}
	vni, rest, _ := strings.Cut(rest, `,"VtepMAC":"`)
	mac, ok := strings.CutSuffix(rest, `"}`)
	number := vni != "" && vni[0] != '0' && strings.Trim(vni, "0123456789") == ""
	return mac, ok && number && len(mac) == len("00:00:00:00:00:00") && strings.Trim(mac, "0123456789abcdef:") == ""
}

// sameAddress reports whether a record has the address that a node is known
// by: the IPv4 one, if it has one.
func sameAddress(record, node subnet.Attrs) bool {
	for f, known := range ipfam.Addrs(node.PublicIP) {
		return record.PublicIP[f] == known
	}
	return false
}

// isSurelyOurs reports whether the node that publishes a has written a record,
// under whatever key: it is under an etcd lease of this node, shares key material
// or, if the backend has none, is the same. With udp the records of several nodes
// may be the same, from behind one address.
func (r *record) isSurelyOurs(a subnet.Attrs, past published) bool {
	have := r.lease.Attrs
	keys, ours := keysOf(have), keysOf(a)
	return past.wrote(r.etcdLease) || overlap(keys[:], ours[:]) ||
		keys == ipfam.Pair[string]{} && have == a && a.BackendType != subnet.DefaultBackend
}
