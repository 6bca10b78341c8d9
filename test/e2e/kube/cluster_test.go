package kube

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

func TestAllPodsReachEachOther(t *testing.T) {
	tests := map[string]lab.Families{"IPv4": lab.IPv4, "IPv6": lab.IPv6, "dual stack": lab.Dual}
	for name, families := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 3, Families: families})
			up(t, l)
			for _, h := range l.Hosts {
				n, err := l.Kubernetes.API.GetNode(t.Context(), h.Name)
				lab.Must(t, err)
				subnets, err := h.Subnet()
				lab.Must(t, err)
				var texts []string
				for _, s := range ipfam.Prefixes(subnets) {
					texts = append(texts, s.String())
				}
				if got, want := strings.Join(texts, " "), strings.Join(n.Spec.PodCIDRs, " "); got != want {
					t.Errorf("%s has %s, its Node %s", h.Name, got, want)
				}
				awaitCondition(t, l, h)
			}
		})
	}
}

// awaitCondition waits until the condition of the Node is that the network is there.
func awaitCondition(t *testing.T, l *lab.Lab, h *lab.Host) {
	t.Helper()
	eventually.Says(t, func() (string, bool) {
		n, err := l.Kubernetes.API.GetNode(t.Context(), h.Name)
		lab.Must(t, err)
		for _, c := range n.Status.Conditions {
			if c.Type == "NetworkUnavailable" {
				return c.Status + " " + c.Reason, c.Status == "False" && c.Reason == "FlannelIsUp"
			}
		}
		return "no condition", false
	})
}

func TestPodsKeepTalkingWhileTheDaemonIsKilled(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	up(t, l)
	h := l.Hosts[0]
	before := annotationOf(t, l, h, "backend-data")
	series := startPing(t, h, l.Hosts[1])
	for range 5 {
		lab.Must(t, h.Kill())
		lab.Must(t, h.StartFlanneld())
		ready(t, h)
	}
	lab.NothingLost(t, series)
	if now := annotationOf(t, l, h, "backend-data"); now != before {
		t.Errorf("data %s, want %s as before", now, before)
	}
}

func TestWipedAnnotationsCutNobodyOff(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 3})
	up(t, l)
	h, other, third := l.Hosts[0], l.Hosts[1], l.Hosts[2]
	series := startPing(t, h, other)
	wiped := map[string]any{"kube-subnet-manager": nil, "backend-data": nil, "public-ip": nil, "backend-type": nil}
	// A living daemon writes them again.
	annotate(t, l, other, wiped)
	awaitAnnotation(t, l, other, "public-ip", other.Addr(ipfam.V4).String())
	// One that is away is kept for a while. Who has seen a later change has
	// seen this one.
	lab.Must(t, other.Stop())
	annotate(t, l, other, wiped)
	annotate(t, l, third, map[string]any{"public-ip-overwrite": "172.31.1.201"})
	eventually.Says(t, func() (string, bool) {
		fdb, err := h.Exec(t.Context(), "bridge", "fdb", "show", "dev", "flannel.1")
		return fdb, err == nil && strings.Contains(fdb, "dst 172.31.1.201 ")
	})
	annotate(t, l, third, map[string]any{"public-ip-overwrite": nil})
	lab.Must(t, other.StartFlanneld())
	ready(t, other)
	awaitAnnotation(t, l, other, "public-ip", other.Addr(ipfam.V4).String())
	lab.NothingLost(t, series)
	connected(t, l)
}

// TestAnAPIServerThatIsAway stops the API server for a minute; the pods do not
// notice, whatever happens to a daemon meanwhile.
func TestAnAPIServerThatIsAway(t *testing.T) {
	waits(t)
	l := newLab(t, lab.Options{Hosts: 3})
	up(t, l)
	h, restarted, leaver := l.Hosts[0], l.Hosts[1], l.Hosts[2]
	series := startPing(t, h, restarted)
	lab.Must(t, l.Kubernetes.Stop())
	away := time.Minute
	if testing.Short() {
		away = 5 * time.Second
	}
	over := time.After(away)
	says(t, h, "/readyz", "cannot be reached: dial "+netip.AddrPortFrom(l.Kubernetes.Addr(), 6443).String())
	if code, body, err := h.Flanneld().Get(t.Context(), "/readyz"); err != nil || code != 200 {
		t.Errorf("a node that works is not ready: %d %s %v", code, body, err)
	}
	lab.Must(t, restarted.Kill())
	lab.Must(t, restarted.StartFlanneld())
	says(t, restarted, "/readyz", "cannot be reached")
	<-over
	lab.Must(t, l.Kubernetes.Start(limited(t)))
	ready(t, restarted)
	says(t, h, "/readyz", "!cannot be reached")
	lab.NothingLost(t, series)
	connected(t, l)

	// Changes arrive after.
	lab.Must(t, leaver.Stop())
	gone, err := leaver.Subnet()
	lab.Must(t, err)
	lab.Must(t, l.Kubernetes.API.DeleteNode(t.Context(), leaver.Name))
	eventually.Says(t, func() (string, bool) {
		routes, err := h.Exec(t.Context(), "ip", "route", "show", "proto", "70")
		return routes, err == nil && !strings.Contains(routes, gone[ipfam.V4].String())
	})
}

func TestANodeMadeAgainWithAnotherPodCIDR(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 3})
	up(t, l)
	h := l.Hosts[1]
	old, err := h.Subnet()
	lab.Must(t, err)
	lab.Must(t, l.Kubernetes.API.DeleteNode(t.Context(), h.Name))
	lab.Must(t, l.Kubernetes.API.CreateNode(t.Context(), h.Name, "10.244.200.0/24"))
	eventually.Says(t, func() (string, bool) {
		now, err := h.Subnet()
		return now[ipfam.V4].String(), err == nil && now != old && now[ipfam.V4].String() == "10.244.200.0/24"
	})
	eventually.Says(t, func() (string, bool) {
		return h.Log(), strings.Contains(h.Log(), "the bridge has an address outside this node's subnet")
	})
	eventually.Says(t, func() (string, bool) {
		routes, err := l.Hosts[0].Exec(t.Context(), "ip", "route", "show", "proto", "70")
		return routes, err == nil && strings.Contains(routes, "10.244.200.0/24") && !strings.Contains(routes, old[ipfam.V4].String())
	})
	awaitCondition(t, l, h)
}

func TestOverridesAreFollowed(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual})
	up(t, l)
	h, peer := l.Hosts[0], l.Hosts[1]
	// The second addresses are those of a router before the host.
	for f, is := range map[ipfam.Family]struct{ key, second, device string }{
		ipfam.V4: {"public-ip", "172.31.1.201", "flannel.1"},
		ipfam.V6: {"public-ipv6", "fd00:31:0:1::201", "flannel-v6.1"},
	} {
		sees := func(address string) {
			t.Helper()
			awaitAnnotation(t, l, h, is.key, address)
			eventually.Says(t, func() (string, bool) {
				fdb, err := peer.Exec(t.Context(), "bridge", "fdb", "show", "dev", is.device)
				return fdb, err == nil && strings.Contains(fdb, "dst "+address+" ")
			})
		}
		for _, key := range []string{is.key + "-overwrite", "node-" + is.key} {
			annotate(t, l, h, map[string]any{key: is.second})
			sees(is.second)
			annotate(t, l, h, map[string]any{key: nil})
			sees(h.Addr(f).String())
		}
	}
	ready(t, h)
	connected(t, l)
}
