package kube

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/kubeplane"
	"flannel/lab"
)

// TestWaiting enters and leaves what a daemon waits for, one after the other
// on the same host.
func TestWaiting(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1})
	h, api := l.Hosts[0], l.Kubernetes.API
	lab.Must(t, api.DeleteNode(t.Context(), h.Name))
	lab.Must(t, api.ForbidDaemon(t.Context()))
	lab.Must(t, l.Kubernetes.Stop())

	lab.Must(t, h.StartFlanneld())
	says(t, h, "/readyz", "cannot be reached: dial")
	lab.Must(t, l.Kubernetes.Start(limited(t)))
	says(t, h, "/readyz", "not allowed to list nodes")
	lab.Must(t, api.AllowDaemon(t.Context()))
	says(t, h, "/readyz", fmt.Sprintf("there is no Node %q", h.Name))
	lab.Must(t, api.CreateNode(t.Context(), h.Name, "10.9.1.0/24"))
	says(t, h, "/readyz", "pod CIDR 10.9.1.0/24 of Node \"host1\" is outside the Network 10.244.0.0/16")
	lab.Must(t, api.DeleteNode(t.Context(), h.Name))
	says(t, h, "/readyz", "there is no Node")
	lab.Must(t, api.CreateNode(t.Context(), h.Name, "10.244.77.0/24"))
	start := time.Now()
	ready(t, h)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("ready %v after the Node was there", took)
	}
	says(t, h, "/readyz", "!waiting for")
	for _, cause := range []string{"cannot be reached", "not allowed to list", "outside the Network"} {
		if n := countLines(h.Log(), "level=WARN", cause); n != 1 {
			t.Errorf("%q is said %d times:\n%s", cause, n, h.Log())
		}
	}
}

func countLines(text string, parts ...string) int {
	n := 0
	for line := range strings.Lines(text) {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		if all {
			n++
		}
	}
	return n
}

// TestNoPodCIDR runs without what gives Nodes their pod CIDRs.
func TestNoPodCIDR(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1})
	h, api := l.Hosts[0], l.Kubernetes.API
	lab.Must(t, l.Kubernetes.StopControllerManager())
	lab.Must(t, api.DeleteNode(t.Context(), h.Name))
	lab.Must(t, api.CreateNode(t.Context(), h.Name))
	lab.Must(t, h.StartFlanneld())
	says(t, h, "/readyz", "has no pod CIDR: give the cluster one with kubeadm init --pod-network-cidr")
	lab.Must(t, l.Kubernetes.StartControllerManager())
	ready(t, h)
}

// TestANodeWithoutIPv6 runs a dual-stack network with a Node that has an IPv4
// pod CIDR alone, and no IPv6 address either.
func TestANodeWithoutIPv6(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual})
	h, api := l.Hosts[1], l.Kubernetes.API
	made := func(podCIDRs ...string) {
		lab.Must(t, api.DeleteNode(t.Context(), h.Name))
		lab.Must(t, api.CreateNode(t.Context(), h.Name, podCIDRs...))
	}
	made("10.244.77.0/24")
	_, err := h.Exec(t.Context(), "ip", "-6", "address", "del", h.Addr(ipfam.V6).String()+"/64", "dev", lab.Uplink)
	lab.Must(t, err)
	up(t, l)
	says(t, h, "/readyz", `Node "host2" has no IPv6 pod CIDR, and runs without IPv6`)
	awaitEvent(t, l, h, "NoPodCIDR", "no IPv6 pod CIDR")
	if e, err := h.Env(); err != nil || e.Subnet[ipfam.V6].IsValid() || e.Network[ipfam.V6] != nil {
		t.Errorf("subnet.env says %+v, %v", e, err)
	}
	if got := annotationOf(t, l, h, "public-ipv6"); got != "" {
		t.Errorf("public-ipv6 is %q", got)
	}
	says(t, l.Hosts[0], "/status", `"how": "tunnel"`)
	says(t, l.Hosts[0], "/status", `!"how": "left out"`)

	_, err = h.Exec(t.Context(), "ip", "-6", "address", "add", h.Addr(ipfam.V6).String()+"/64", "dev", lab.Uplink, "nodad")
	lab.Must(t, err)
	made("10.244.77.0/24", "fd00:10:244:4d::/64")
	awaitAnnotation(t, l, h, "public-ipv6", h.Addr(ipfam.V6).String())
	ready(t, h)
	_, err = h.AddPod("pod2")
	lab.Must(t, err)
	connected(t, l)
	says(t, h, "/readyz", "!has no IPv6 pod CIDR")
}

func TestACertificateThatIsNotTrusted(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1})
	h := l.Hosts[0]
	other := *l.Kubernetes.Plane
	other.Dir = t.TempDir()
	lab.Must(t, other.Write())
	h.Flags = []string{"--kubeconfig-file=" + other.Kubeconfig(kubeplane.Daemon)}
	lab.Must(t, h.StartFlanneld())
	says(t, h, "/readyz", "is not trusted")
	lab.Must(t, l.Kubernetes.Plane.WriteKubeconfig(other.Kubeconfig(kubeplane.Daemon), l.Kubernetes.Plane.URL(), kubeplane.Daemon))
	ready(t, h)
}

func TestABadFileEndsTheDaemon(t *testing.T) {
	for text, want := range map[string]string{
		"{": "net-conf.json: network configuration",
		`{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": -1}}`: "VNI",
	} {
		l := newLab(t, lab.Options{Hosts: 1})
		h := l.Hosts[0]
		lab.Must(t, l.Kubernetes.SetConfig(text))
		lab.Must(t, h.StartFlanneld())
		<-h.Flanneld().Exited()
		if log := h.Log(); h.Flanneld().ExitCode() != 1 || strings.Count(log, "\n") != 1 || !strings.Contains(log, want) {
			t.Errorf("code %d:\n%s", h.Flanneld().ExitCode(), log)
		}
		lab.Must(t, l.Close())
	}
}
