package kube

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/internal/testkit/kubeplane"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

func nothing() ipfam.Pair[netip.Prefix] { return ipfam.Pair[netip.Prefix]{} }

// onNode returns the manager of a Node that has this pod CIDR.
func (h *harness) onNode(t *testing.T, name, podCIDR string) *Manager {
	t.Helper()
	h.must(t, h.server.API.CreateNode(h.ctx(t), name, podCIDR))
	return start(t, h.options(t, name))
}

func (h *harness) acquire(t *testing.T, m *Manager) subnet.Lease {
	t.Helper()
	l, err := m.Acquire(h.ctx(t), attrs4(), nothing())
	h.must(t, err)
	return l
}

// annotation returns one of a Node's annotations.
func (h *harness) annotation(t *testing.T, node, key string) string {
	t.Helper()
	n, err := h.server.API.GetNode(h.ctx(t), node)
	h.must(t, err)
	return n.Metadata.Annotations[prefix+key]
}

func (h *harness) annotate(t *testing.T, node, key string, value any) {
	t.Helper()
	h.must(t, h.server.API.Annotate(h.ctx(t), node, map[string]any{prefix + key: value}))
}

func (h *harness) awaitAnnotation(t *testing.T, node, key, want string) {
	t.Helper()
	eventually.True(t, key+" is "+want, func() bool { return h.annotation(t, node, key) == want })
}

// owns is what happens to our Node.
func owns() map[string]func(t *testing.T, h *harness) {
	return map[string]func(t *testing.T, h *harness){
		"wiped and changed annotations are written again": func(t *testing.T, h *harness) {
			m := h.onNode(t, "wiped", "10.5.1.0/24")
			own := h.acquire(t, m)
			_, stop := keeping(t, m, own)
			defer stop()
			began := time.Now()
			h.annotate(t, "wiped", "public-ip", nil)
			h.awaitAnnotation(t, "wiped", "public-ip", "192.0.2.1")
			h.annotate(t, "wiped", "backend-data", `{"VNI":1,"VtepMAC":"02:00:00:00:00:66"}`)
			h.awaitAnnotation(t, "wiped", "backend-data", attrs4().Data[ipfam.V4])
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("only after %v", took)
			}
		},
		"contention is reported on the Node": func(t *testing.T, h *harness) {
			h.must(t, h.server.API.CreateNode(h.ctx(t), "contended", "10.5.1.0/24"))
			o := h.options(t, "contended")
			conflicts := make(chan error, 8)
			o.Conflict = func(err error) { conflicts <- err }
			m := start(t, o)
			_, stop := keeping(t, m, h.acquire(t, m))
			defer stop()
			for range 3 {
				h.annotate(t, "contended", "public-ip", "192.0.2.66")
				h.awaitAnnotation(t, "contended", "public-ip", "192.0.2.1")
			}
			h.awaitEvent(t, "contended", "AnnotationsChanged")
			if err := <-conflicts; err == nil {
				t.Error("the conflict is not reported")
			}
		},
		"a Node created again with another pod CIDR is a lost lease": func(t *testing.T, h *harness) {
			m := h.onNode(t, "again", "10.5.1.0/24")
			result, stop := keeping(t, m, h.acquire(t, m))
			defer stop()
			h.must(t, h.server.API.DeleteNode(h.ctx(t), "again"))
			h.must(t, h.server.API.CreateNode(h.ctx(t), "again", "10.5.2.0/24"))
			if err := <-result; !errors.Is(err, subnet.ErrLeaseLost) {
				t.Errorf("Keep = %v", err)
			}
			if l := h.acquire(t, m); l.Subnet != subnettest.Subnets("10.5.2.0/24") {
				t.Errorf("acquired %v", l.Subnet)
			}
			h.awaitAnnotation(t, "again", "public-ip", "192.0.2.1")
		},
		"an overwritten address is published, also when it changes": func(t *testing.T, h *harness) {
			m := h.onNode(t, "overwritten", "10.5.1.0/24")
			h.annotate(t, "overwritten", "public-ip-overwrite", "198.51.100.1")
			for _, want := range []string{"198.51.100.1", "198.51.100.2", "192.0.2.1"} {
				if want == "192.0.2.1" {
					h.annotate(t, "overwritten", "public-ip-overwrite", nil)
				} else {
					h.annotate(t, "overwritten", "public-ip-overwrite", want)
				}
				var l subnet.Lease
				eventually.True(t, "the address is "+want, func() bool {
					l = h.acquire(t, m)
					return l.Attrs.PublicIP[ipfam.V4].String() == want
				})
				if got := h.annotation(t, "overwritten", "public-ip"); got != want {
					t.Errorf("public-ip is %s, want %s", got, want)
				}
				result, stop := keeping(t, m, l)
				h.annotate(t, "overwritten", "public-ip-overwrite", "198.51.100.99")
				if err := <-result; err != nil {
					t.Errorf("Keep = %v", err)
				}
				stop()
			}
		},
		"an address that replaces the flags is followed": func(t *testing.T, h *harness) {
			m := h.onNode(t, "replaced", "10.5.1.0/24")
			h.annotate(t, "replaced", "node-public-ip", "198.51.100.1")
			eventually.True(t, "the address is known", func() bool {
				got, err := m.Overrides(h.ctx(t))
				return err == nil && got[ipfam.V4] == netip.MustParseAddr("198.51.100.1")
			})
			changed, _ := subnettest.Background(t, m.OverridesChanged)
			h.annotate(t, "replaced", "public-ip", "192.0.2.77")
			h.annotate(t, "replaced", "node-public-ip", "198.51.100.2")
			h.must(t, <-changed)
			if got, err := m.Overrides(h.ctx(t)); err != nil || got[ipfam.V4] != netip.MustParseAddr("198.51.100.2") {
				t.Errorf("Overrides = %v, %v", got, err)
			}
		},
		"a family without pod CIDR is left out until the Node has both": func(t *testing.T, h *harness) {
			h.SetConfig(t, subnettest.DualConfig)
			h.must(t, h.server.API.CreateNode(h.ctx(t), "half", "10.5.1.0/24"))
			reported, m := h.listening(t, "half")
			full := subnettest.Subnets("10.5.0.0/16", "fd00:5::/56")
			if c, err := m.Config(h.ctx(t)); err != nil || c.Network != (ipfam.Pair[netip.Prefix]{full[ipfam.V4]}) {
				t.Fatalf("Config = %+v, %v", c, err)
			}
			await(t, &reported.waiting, `Node "half" has no IPv6 pod CIDR, and runs without IPv6`)
			h.awaitEvent(t, "half", "NoPodCIDR")
			_, stop := keeping(t, m, h.acquire(t, m))
			defer stop()
			changed, _ := subnettest.Background(t, m.FamiliesChanged)
			h.annotate(t, "half", "public-ip-overwrite", "nonsense")
			h.must(t, h.server.API.DeleteNode(h.ctx(t), "half"))
			h.must(t, h.server.API.CreateNode(h.ctx(t), "half", "10.5.1.0/24", "fd00:5:0:1::/64"))
			h.must(t, <-changed)
			if c, err := m.Config(h.ctx(t)); err != nil || c.Network != full {
				t.Errorf("Config = %+v, %v", c, err)
			}
			await(t, &reported.waiting, "")
		},
		"an earlier run is remembered": func(t *testing.T, h *harness) {
			m := h.onNode(t, "earlier", "10.5.1.0/24")
			if a, err := m.Previous(h.ctx(t), attrs4().PublicIP, nothing()); err != nil || a != (subnet.Attrs{}) {
				t.Errorf("before the first run: %+v, %v", a, err)
			}
			h.acquire(t, m)
			next := start(t, h.options(t, "earlier"))
			if a, err := next.Previous(h.ctx(t), ipfam.Pair[netip.Addr]{}, nothing()); err != nil || a != attrs4() {
				t.Errorf("after it: %+v, %v", a, err)
			}
		},
		"the condition is written when the node is ready, and for each Node": func(t *testing.T, h *harness) {
			h.must(t, h.server.API.CreateNode(h.ctx(t), "ready", "10.5.1.0/24"))
			o := h.options(t, "ready")
			o.SetNetworkUnavailable = true
			m := start(t, o)
			h.acquire(t, m)
			if c := h.condition(t, "ready"); c != "" {
				t.Errorf("the condition is %q before the node is ready", c)
			}
			m.NetworkReady()
			for range 2 {
				eventually.True(t, "the condition", func() bool {
					return h.condition(t, "ready") == "False FlannelIsUp Flannel is running on this node"
				})
				h.must(t, h.server.API.DeleteNode(h.ctx(t), "ready"))
				h.must(t, h.server.API.CreateNode(h.ctx(t), "ready", "10.5.1.0/24"))
			}
		},
		"a restarted daemon leaves a condition that is right": func(t *testing.T, h *harness) {
			h.must(t, h.server.API.CreateNode(h.ctx(t), "again", "10.5.1.0/24"))
			for _, written := range []string{"written=true", "written=false"} {
				var log book
				o := h.options(t, "again")
				o.SetNetworkUnavailable = true
				o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				m := start(t, o)
				h.acquire(t, m)
				m.NetworkReady()
				eventually.True(t, written, func() bool {
					return strings.Contains(log.String(), `msg="condition NetworkUnavailable is false" node=again `+written)
				})
			}
		},
		"the pod names the Node": func(t *testing.T, h *harness) {
			h.must(t, h.server.API.CreateNode(h.ctx(t), "podded", "10.5.1.0/24"))
			_, err := h.server.API.Do(h.ctx(t), http.MethodPost, "/api/v1/namespaces/default/pods", kubeplane.JSON,
				`{"metadata":{"name":"flanneld"},"spec":{"nodeName":"podded","containers":[{"name":"c","image":"i"}]}}`)
			h.must(t, err)
			o := h.options(t, "")
			o.Getenv = func(name string) string {
				return map[string]string{"POD_NAME": "flanneld", "POD_NAMESPACE": "default"}[name]
			}
			if l := h.acquire(t, start(t, o)); l.Name != "podded" {
				t.Errorf("the Node is %q", l.Name)
			}
		},
		"a refusal is not repeated in the log": func(t *testing.T, h *harness) {
			var log strings.Builder
			o := h.options(t, "quiet")
			reported := &reports{}
			reported.listen(&o)
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
			m, err := New(o)
			h.must(t, err)
			_, stop := subnettest.Background(t, m.Run)
			_, stopAcquire := subnettest.Background(t, func(ctx context.Context) error {
				_, err := m.Acquire(ctx, attrs4(), nothing())
				return err
			})
			await(t, &reported.waiting, "there is no Node")
			for i := range 3 {
				name := []string{"a", "b", "c"}[i]
				h.must(t, h.server.API.CreateNode(h.ctx(t), name))
			}
			h.must(t, h.server.API.CreateNode(h.ctx(t), "quiet", "10.5.7.0/24"))
			await(t, &reported.waiting, "")
			stopAcquire()
			stop()
			if n := strings.Count(log.String(), "level=WARN"); n != 1 {
				t.Errorf("%d warnings:\n%s", n, log.String())
			}
		},
	}
}

// keeping runs Keep.
func keeping(t *testing.T, m *Manager, own subnet.Lease) (<-chan error, func()) {
	t.Helper()
	return subnettest.Background(t, func(ctx context.Context) error { return m.Keep(ctx, own, func(subnet.Lease) {}) })
}

// condition returns the condition NetworkUnavailable in words.
func (h *harness) condition(t *testing.T, node string) string {
	t.Helper()
	n, err := h.server.API.GetNode(h.ctx(t), node)
	h.must(t, err)
	for _, c := range n.Status.Conditions {
		if c.Type == "NetworkUnavailable" {
			return strings.Join([]string{c.Status, c.Reason, c.Message}, " ")
		}
	}
	return ""
}
