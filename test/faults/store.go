package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
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
}

// attrs are what the suite publishes for nodes that do not exist.
type attrs struct {
	public ipfam.Pair[string]
	mac    string
}

// recordKey is the key of these subnets.
func recordKey(s ipfam.Pair[netip.Prefix]) string {
	dash := func(p netip.Prefix) string { return strings.ReplaceAll(p.String(), "/", "-") }
	return subnetsPrefix + dash(s[ipfam.V4]) + "&" + dash(s[ipfam.V6])
}

// The marker is a node that does not exist. What it publishes changes each
// round: a host that has it in its kernel follows the store.
const (
	markerName = "marker"
	marker4    = "10.244.250.0/24"
	marker6    = "fd00:10:244:fa00::/64"
)

var markerSubnets = ipfam.Pair[netip.Prefix]{netip.MustParsePrefix(marker4), netip.MustParsePrefix(marker6)}

// putMarker publishes the marker of a round.
func (s *suite) putMarker(ctx context.Context, round int) error {
	number := 100 + round%90
	a := attrs{
		public: ipfam.Pair[string]{fmt.Sprintf("172.31.1.%d", number), fmt.Sprintf("fd00:31:0:1::%d", number)},
		mac:    fmt.Sprintf("02:00:00:00:fa:%02x", number),
	}
	s.marker = number
	if s.store == etcd {
		return s.lab.Etcd.Put(ctx, recordKey(markerSubnets), a.record(s.backend))
	}
	api := s.lab.Kubernetes.API
	if err := api.CreateNode(ctx, markerName, marker4, marker6); err != nil && !kubeplane.IsCode(err, http.StatusConflict) {
		return err
	}
	return api.Annotate(ctx, markerName, a.annotations(s.backend))
}

// records reads what the hosts have published under their present subnets, and
// the marker.
func (s *suite) records(ctx context.Context) ([]record, error) {
	stored, err := s.stored(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]record, 0, len(s.lab.Hosts)+1)
	for _, h := range s.lab.Hosts {
		subnet, err := h.Subnet()
		if err != nil {
			return nil, err
		}
		r, ok := stored[recordKey(subnet)]
		if !ok {
			return nil, fmt.Errorf("%s has no record %s", h.Name, recordKey(subnet))
		}
		for f, a := range r.public.Each() {
			if a != h.Addr(f) {
				return nil, fmt.Errorf("%s has published %s, its uplink has %s", h.Name, a, h.Addr(f))
			}
		}
		out = append(out, r)
	}
	r, ok := stored[recordKey(markerSubnets)]
	if !ok || !strings.HasSuffix(r.public[ipfam.V4].String(), fmt.Sprint(".", s.marker)) {
		return nil, fmt.Errorf("the store does not have marker %d", s.marker)
	}
	return append(out, r), nil
}

// stored returns the records that can be read, by the keys that they have in
// etcd.
func (s *suite) stored(ctx context.Context) (map[string]record, error) {
	if s.store == kubernetes {
		return s.storedNodes(ctx)
	}
	found, err := s.lab.Etcd.List(ctx, subnetsPrefix)
	out := map[string]record{}
	for key, text := range found {
		var v struct {
			PublicIP, PublicIPv6       netip.Addr
			BackendData, BackendV6Data struct{ VtepMAC string }
		}
		if json.Unmarshal([]byte(text), &v) == nil {
			out[key] = record{
				public: ipfam.Pair[netip.Addr]{v.PublicIP, v.PublicIPv6},
				mac:    ipfam.Pair[string]{v.BackendData.VtepMAC, v.BackendV6Data.VtepMAC},
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
			var data struct{ VtepMAC string }
			_ = json.Unmarshal([]byte(n.Metadata.Annotations[annotation+dataKeys[f]]), &data)
			r.mac[f] = data.VtepMAC
		}
		out[recordKey(r.subnet)] = r
	}
	return out, err
}

var dataKeys = ipfam.Pair[string]{"backend-data", "backend-v6-data"}

// annotations are what a Node says.
func (a attrs) annotations(backend string) map[string]any {
	data := any("null")
	if backend == vxlan {
		data = fmt.Sprintf(`{"VNI":1,"VtepMAC":%q}`, a.mac)
	}
	return map[string]any{
		annotation + "kube-subnet-manager": "true", annotation + "backend-type": backend,
		annotation + "public-ip": a.public[ipfam.V4], annotation + "public-ipv6": a.public[ipfam.V6],
		annotation + "backend-data": data, annotation + "backend-v6-data": data,
	}
}

// sees reports whether a daemon knows the marker of this round.
func (s *suite) sees(ctx context.Context, h *lab.Host) error {
	code, body, err := h.Flanneld().Get(ctx, "/status")
	if err != nil || code != http.StatusOK {
		return errors.Join(err, fmt.Errorf("%s: /status: %d", h.Name, code))
	}
	if want := fmt.Sprintf("172.31.1.%d", s.marker); !slices.Contains(strings.Split(body, `"`), want) {
		return fmt.Errorf("%s does not follow the store: its status has no peer at %s", h.Name, want)
	}
	return nil
}
