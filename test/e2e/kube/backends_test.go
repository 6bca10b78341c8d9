package kube

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/internal/testkit/kubeplane"
	"flannel/lab"
)

// TestOtherBackends lets each backend connect pods, and heal.
func TestOtherBackends(t *testing.T) {
	const ours = "ip route flush proto 70; ip -6 route flush proto 70"
	tests := map[string]struct{ backend, fault string }{
		"host-gw":        {`{"Type": "host-gw"}`, ours},
		"direct routing": {`{"Type": "vxlan", "DirectRouting": true}`, ours},
		"on demand":      {`{"Type": "vxlan", "OnDemand": true}`, ours + "; ip link del flannel.1; ip link del flannel-v6.1"},
		"udp":            {`{"Type": "udp"}`, ours + "; ip link del flannel0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual, Backend: tt.backend})
			up(t, l)
			h := l.Hosts[0]
			for command := range strings.SplitSeq(tt.fault, "; ") {
				_, err := h.Exec(t.Context(), strings.Fields(command)...)
				lab.Must(t, err)
			}
			connected(t, l)
		})
	}
}

// ownNodeOnly lets the daemon see and change one Node, and no other.
func ownNodeOnly(name string) string {
	return fmt.Sprintf(`[
		{"apiGroups": [""], "resources": ["nodes"], "resourceNames": [%[1]q], "verbs": ["get", "list", "watch"]},
		{"apiGroups": [""], "resources": ["nodes/status"], "resourceNames": [%[1]q], "verbs": ["patch"]}
	]`, name)
}

// TestAllocWatchesNoOtherNode runs the daemon with the right to its own Node
// only.
func TestAllocWatchesNoOtherNode(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual, Backend: `{"Type": "alloc"}`})
	h, api := l.Hosts[0], l.Kubernetes.API
	lab.Must(t, api.AllowDaemonOnly(t.Context(), ownNodeOnly(h.Name), kubeplane.NoRules))
	eventually.Says(t, func() (string, bool) {
		body, err := api.Do(t.Context(), http.MethodPost, "/apis/authorization.k8s.io/v1/subjectaccessreviews", kubeplane.JSON,
			fmt.Sprintf(`{"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
				"spec": {"user": %q, "resourceAttributes": {"verb": "list", "resource": "nodes"}}}`, kubeplane.Daemon))
		return string(body), err == nil && strings.Contains(string(body), `"allowed":false`)
	})
	lab.Must(t, h.StartFlanneld())
	ready(t, h)
	awaitAnnotation(t, l, h, "backend-type", "alloc")
	awaitAnnotation(t, l, h, "backend-data", "null")
	awaitAnnotation(t, l, h, "public-ip", h.Addr(ipfam.V4).String())
	awaitCondition(t, l, h)
	n, err := api.GetNode(t.Context(), h.Name)
	lab.Must(t, err)
	e, err := h.Env()
	lab.Must(t, err)
	for f, s := range ipfam.Prefixes(e.Masked()) {
		if s.String() != n.Spec.PodCIDRs[f] {
			t.Errorf("%s in subnet.env, %v in the Node", s, n.Spec.PodCIDRs)
		}
	}
	if strings.Contains(h.Log(), "not allowed") {
		t.Errorf("log\n%s", h.Log())
	}
	routes, err := h.Exec(t.Context(), "ip", "route", "show", "proto", "70")
	lab.Must(t, err)
	if routes != "" {
		t.Errorf("routes %s", routes)
	}
	// What is wiped is written again.
	annotate(t, l, h, map[string]any{"kube-subnet-manager": nil, "public-ip": nil})
	awaitAnnotation(t, l, h, "kube-subnet-manager", "true")
	awaitAnnotation(t, l, h, "public-ip", h.Addr(ipfam.V4).String())
}
