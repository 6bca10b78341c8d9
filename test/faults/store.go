package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/kubeplane"
	"flannel/lab"
)

// The stores of leases.
const (
	etcd       = "etcd"
	kubernetes = "kubernetes"
)

var stores = []string{etcd, kubernetes}

const subnetsPrefix = lab.DefaultPrefix + "/subnets/"

// record is what a host has published.
type record struct {
	subnet ipfam.Pair[netip.Prefix]
	public ipfam.Pair[netip.Addr]
	mac    ipfam.Pair[string]
	// use is who uses it.
	use use
}

// usedBy reports whether a host uses a record in one family.
func (r record) usedBy(host int, f ipfam.Family) bool {
	return r.use.except != host && !r.use.without[f] && r.subnet[f].IsValid() && r.public[f].IsValid() && !r.public[f].IsUnspecified()
}

// attrs are what the suite publishes for nodes that do not exist.
type attrs struct {
	public, mac ipfam.Pair[string]
}

// both is the same in both families.
func both(text string) ipfam.Pair[string] { return ipfam.Pair[string]{text, text} }

// recordKey is the key of these subnets, of one family or both.
func recordKey(s ipfam.Pair[netip.Prefix]) string {
	var parts []string
	for _, p := range ipfam.Prefixes(s) {
		parts = append(parts, strings.ReplaceAll(p.String(), "/", "-"))
	}
	return subnetsPrefix + strings.Join(parts, "&")
}

// The marker is a node that does not exist. What it publishes changes each
// time: a host that has it in its kernel follows the store.
const (
	markerName = "marker"
	marker4    = "10.244.250.0/24"
	marker6    = "fd00:10:244:fa00::/64"
)

var markerSubnets = ipfam.Pair[netip.Prefix]{netip.MustParsePrefix(marker4), netip.MustParsePrefix(marker6)}

// putMarker publishes the next marker.
func (s *suite) putMarker(ctx context.Context) error {
	s.markers++
	a := attrs{
		public: ipfam.Pair[string]{s.marker(), fmt.Sprintf("fd00:31:0:1::%d", 100+s.markers%90)},
		mac:    both(fmt.Sprintf("02:00:00:00:fa:%02x", s.markers%90)),
	}
	if s.store == etcd {
		return s.lab.Etcd.Put(ctx, recordKey(markerSubnets), a.record(s.backend))
	}
	api := s.lab.Kubernetes.API
	if err := api.CreateNode(ctx, markerName, marker4, marker6); err != nil && !kubeplane.IsCode(err, http.StatusConflict) {
		return err
	}
	return api.Annotate(ctx, markerName, a.annotations(s.backend))
}

// marker is the public address of the last one.
func (s *suite) marker() string { return fmt.Sprintf("172.31.1.%d", 100+s.markers%90) }

// records reads what the hosts have published under their present subnets, the
// marker, and uses.
func (s *suite) records(ctx context.Context, uses []use) ([]record, error) {
	stored, err := s.stored(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]record, 0, len(s.lab.Hosts)+1+len(uses))
	add := func(u use) error {
		r, ok := stored[u.key]
		if !ok {
			return fmt.Errorf("the store has no record %s", u.key)
		}
		r.use = u
		out = append(out, r)
		return nil
	}
	for i, h := range s.lab.Hosts {
		subnet, err := h.Subnet()
		if err != nil {
			return nil, err
		}
		if err := add(use{key: s.key(h.Name, subnet), except: i}); err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name, err)
		}
		if out[i].subnet != subnet {
			return nil, fmt.Errorf("%s has published %v, subnet.env has %v", h.Name, out[i].subnet, subnet)
		}
		for f, a := range out[i].public.Each() {
			if a != h.Addr(f) {
				return nil, fmt.Errorf("%s has published %s, its uplink has %s", h.Name, a, h.Addr(f))
			}
		}
	}
	if err := add(use{key: s.key(markerName, markerSubnets), except: nobody}); err != nil {
		return nil, err
	}
	if got := out[len(out)-1].public[ipfam.V4].String(); got != s.marker() {
		return nil, fmt.Errorf("the store has the marker %s, not %s", got, s.marker())
	}
	for _, u := range uses {
		if err := add(u); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// key is what a record has in the store: a key in etcd, or the name of a Node.
func (s *suite) key(name string, subnets ipfam.Pair[netip.Prefix]) string {
	if s.store == kubernetes {
		return name
	}
	return recordKey(subnets)
}

// stored returns the records that can be read, by their keys.
func (s *suite) stored(ctx context.Context) (map[string]record, error) {
	if s.store == kubernetes {
		return s.storedNodes(ctx)
	}
	found, err := s.lab.Etcd.List(ctx, subnetsPrefix)
	out := map[string]record{}
	for key, text := range found {
		var v struct {
			PublicIP, PublicIPv6       netip.Addr
			BackendData, BackendV6Data json.RawMessage
		}
		if json.Unmarshal([]byte(text), &v) == nil {
			out[key] = record{
				public: ipfam.Pair[netip.Addr]{v.PublicIP, v.PublicIPv6},
				mac:    ipfam.Pair[string]{macOf(v.BackendData), macOf(v.BackendV6Data)},
				subnet: subnetsOf(key),
			}
		}
	}
	return out, err
}

// subnetsOf is the inverse of recordKey; what it cannot read is not there.
func subnetsOf(key string) (out ipfam.Pair[netip.Prefix]) {
	for part := range strings.SplitSeq(strings.TrimPrefix(key, subnetsPrefix), "&") {
		i := strings.LastIndex(part, "-")
		if p, err := netip.ParsePrefix(part[:max(0, i)] + "/" + part[i+1:]); err == nil {
			out[ipfam.Of(p.Addr())] = p
		}
	}
	return out
}

const annotation = "flannel.alpha.coreos.com/"

func (s *suite) storedNodes(ctx context.Context) (map[string]record, error) {
	nodes, err := s.lab.Kubernetes.API.Nodes(ctx)
	out := map[string]record{}
	for _, n := range nodes {
		var r record
		for _, text := range n.Spec.PodCIDRs {
			if p, err := netip.ParsePrefix(text); err == nil {
				r.subnet[ipfam.Of(p.Addr())] = p
			}
		}
		for f, kind := range (ipfam.Pair[string]{"", "v6"}).Each() {
			// What cannot be read is compared as what it is: nothing.
			r.public[f], _ = netip.ParseAddr(n.Metadata.Annotations[annotation+"public-ip"+kind])
			r.mac[f] = macOf([]byte(n.Metadata.Annotations[annotation+dataKeys[f]]))
		}
		out[n.Metadata.Name] = r
	}
	return out, err
}

// macOf reads what a vxlan device publishes; of what cannot be read, nothing.
func macOf(data []byte) string {
	var d struct{ VtepMAC string }
	_ = json.Unmarshal(data, &d)
	return d.VtepMAC
}

var dataKeys = ipfam.Pair[string]{"backend-data", "backend-v6-data"}

// annotations are those of a Node.
func (a attrs) annotations(backend string) map[string]any {
	out := map[string]any{
		annotation + "kube-subnet-manager": "true", annotation + "backend-type": backend,
		annotation + "public-ip": a.public[ipfam.V4], annotation + "public-ipv6": a.public[ipfam.V6],
	}
	for f, mac := range a.mac.Each() {
		out[annotation+dataKeys[f]] = "null"
		if backend == vxlan {
			out[annotation+dataKeys[f]] = fmt.Sprintf(`{"VNI":1,"VtepMAC":%q}`, mac)
		}
	}
	return out
}
