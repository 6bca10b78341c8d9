package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

// peer is a Node without a machine.
type peer struct {
	name          string
	backend       string
	v4, ip4, mac4 string
	v6, ip6, mac6 string
}

func (p peer) annotations() map[string]any {
	backend := p.backend
	if backend == "" {
		backend = "vxlan"
	}
	data := func(mac string) string { return fmt.Sprintf(`{"VNI":1,"VtepMAC":%q}`, mac) }
	a := map[string]any{"kube-subnet-manager": "true", "backend-type": backend, "public-ip": p.ip4, "backend-data": data(p.mac4)}
	if p.v6 != "" {
		a["public-ipv6"], a["backend-v6-data"] = p.ip6, data(p.mac6)
	}
	return a
}

// addPeer makes the Node of a peer, or makes it anew.
func addPeer(t *testing.T, l *lab.Lab, p peer) {
	t.Helper()
	api := l.Kubernetes.API
	lab.Must(t, api.DeleteNode(t.Context(), p.name))
	podCIDRs := []string{p.v4}
	if p.v6 != "" {
		podCIDRs = append(podCIDRs, p.v6)
	}
	lab.Must(t, api.CreateNode(t.Context(), p.name, podCIDRs...))
	annotateNode(t, l, p.name, p.annotations())
}

// entries are what the kernel of another node holds for a peer.
func (p peer) entries() []string {
	v4, v6 := strings.TrimSuffix(p.v4, "/24"), strings.TrimSuffix(p.v6, "/64")
	out := []string{
		fmt.Sprintf("%s via %s dev flannel.1", p.v4, v4),
		fmt.Sprintf("%s dev flannel.1 lladdr %s PERMANENT", v4, p.mac4),
		fmt.Sprintf("flannel.1: %s dst %s self permanent", p.mac4, p.ip4),
	}
	if p.v6 != "" {
		out = append(out,
			fmt.Sprintf("%s via %s dev flannel-v6.1", p.v6, v6),
			fmt.Sprintf("%s dev flannel-v6.1 lladdr %s PERMANENT", v6, p.mac6),
			fmt.Sprintf("flannel-v6.1: %s dst %s self permanent", p.mac6, p.ip6))
	}
	return out
}

// kernelOf is everything about peers in a host's kernel, one entry a line.
const kernelOf = `
	ip -4 route show proto 70; ip -6 route show proto 70
	for dev in flannel.1 flannel-v6.1; do
		ip neigh show dev $dev nud permanent | sed "s/ lladdr/ dev $dev lladdr/"
		bridge fdb show dev $dev | sed "s/^/$dev: /"
	done`

// awaitPeer waits until the kernel holds what belongs to the peer and nothing
// of what it had before.
func awaitPeer(t *testing.T, h *lab.Host, was, is []string) {
	t.Helper()
	eventually.Says(t, func() (string, bool) {
		have, err := h.Exec(t.Context(), "sh", "-c", kernelOf)
		ok := err == nil
		for _, entry := range is {
			ok = ok && strings.Contains(have, entry)
		}
		for _, entry := range was {
			ok = ok && (slices.Contains(is, entry) || !strings.Contains(have, entry))
		}
		return fmt.Sprintf("%v\n%s\nwant %q", err, have, is), ok
	})
}

// TestEachFieldOfAPeerReachesTheKernel changes one thing of a peer at a time,
// in one family and in both, on a host whose daemon never restarts.
func TestEachFieldOfAPeerReachesTheKernel(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1, Families: lab.Dual})
	h := l.Hosts[0]
	lab.Must(t, h.StartFlanneld())
	ready(t, h)
	first := peer{
		name: "peer", v4: "10.244.201.0/24", ip4: "172.31.1.201", mac4: "02:00:00:00:04:01",
		v6: "fd00:10:244:c9::/64", ip6: "fd00:172:31:1::c9", mac6: "02:00:00:00:06:01",
	}
	fields := map[string][2]func(p *peer){
		"MAC":       {func(p *peer) { p.mac4 = "02:00:00:00:04:02" }, func(p *peer) { p.mac6 = "02:00:00:00:06:02" }},
		"public IP": {func(p *peer) { p.ip4 = "172.31.1.202" }, func(p *peer) { p.ip6 = "fd00:172:31:1::ca" }},
		"pod CIDR":  {func(p *peer) { p.v4 = "10.244.202.0/24" }, func(p *peer) { p.v6 = "fd00:10:244:ca::/64" }},
	}
	for name, change := range fields {
		for families, which := range map[string][]int{"IPv4": {0}, "IPv6": {1}, "both": {0, 1}} {
			t.Run(name+" of "+families, func(t *testing.T) {
				addPeer(t, l, first)
				awaitPeer(t, h, nil, first.entries())
				next := first
				for _, f := range which {
					change[f](&next)
				}
				if next.v4 != first.v4 || next.v6 != first.v6 {
					addPeer(t, l, next) // the pod CIDRs of a Node never change
				} else {
					annotateNode(t, l, next.name, next.annotations())
				}
				awaitPeer(t, h, first.entries(), next.entries())
			})
		}
	}
	t.Run("backend type", func(t *testing.T) {
		addPeer(t, l, first)
		awaitPeer(t, h, nil, first.entries())
		other := first
		other.backend = "host-gw"
		annotateNode(t, l, other.name, other.annotations())
		awaitPeer(t, h, first.entries(), nil)
		annotateNode(t, l, first.name, first.annotations())
		awaitPeer(t, h, nil, first.entries())
	})
	t.Run("IPv6 gone with its pod CIDR", func(t *testing.T) {
		only4 := first
		only4.v6 = ""
		addPeer(t, l, only4)
		awaitPeer(t, h, first.entries(), only4.entries())
	})
}

// TestAPeerKeepsWhatWasWiped takes single annotations from peers; what is left
// is followed.
func TestAPeerKeepsWhatWasWiped(t *testing.T) {
	for name, keys := range map[string][]string{"vxlan": {"public-ipv6", "backend-v6-data"}, "host-gw": {"backend-type"}} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 1, Families: lab.Dual, Backend: fmt.Sprintf(`{"Type": %q}`, name)})
			h := l.Hosts[0]
			lab.Must(t, h.StartFlanneld())
			ready(t, h)
			p := peer{
				name: "peer", backend: name, v4: "10.244.201.0/24", ip4: "172.31.1.201", mac4: "02:00:00:00:04:01",
				v6: "fd00:10:244:c9::/64", ip6: "fd00:31:0:1::c9", mac6: "02:00:00:00:06:01",
			}
			entries := func(p peer) []string {
				if name == "vxlan" {
					return p.entries()
				}
				return []string{p.v4 + " via " + p.ip4 + " dev", p.v6 + " via " + p.ip6 + " dev"}
			}
			addPeer(t, l, p)
			if name == "host-gw" {
				annotateNode(t, l, p.name, map[string]any{"backend-data": "null", "backend-v6-data": "null"})
			}
			awaitPeer(t, h, nil, entries(p))
			wiped := map[string]any{}
			for _, key := range keys {
				wiped[key] = nil
			}
			// The change shows that the rest has been read.
			next := p
			next.ip4 = "172.31.1.202"
			wiped["public-ip"] = next.ip4
			annotateNode(t, l, p.name, wiped)
			awaitPeer(t, h, entries(p), entries(next))
		})
	}
}
