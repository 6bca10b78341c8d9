package kube

import (
	"fmt"
	"strings"
	"testing"

	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

// runsFromState waits until the daemon is ready although the API server is away.
func runsFromState(t *testing.T, h *lab.Host) {
	t.Helper()
	eventually.Says(t, func() (string, bool) {
		code, body, err := h.Flanneld().Get(t.Context(), "/readyz")
		return fmt.Sprint(code, body, err), code == 200 && strings.Contains(body, "leases: running from state of 20")
	})
}

func TestANodeStartsWithoutTheAPIServer(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 3, Families: lab.Dual})
	up(t, l)
	rebooted := l.Hosts[:2]
	data := annotationOf(t, l, rebooted[0], "backend-data")
	for _, h := range rebooted {
		lab.Must(t, h.Stop())
	}
	lab.Must(t, l.Kubernetes.Stop())
	for _, h := range rebooted {
		_, err := h.Exec(t.Context(), "sh", "-c", "ip link del flannel.1; ip link del flannel-v6.1; ip route flush proto 70; rm -r /run/flannel")
		lab.Must(t, err)
		lab.Must(t, h.StartFlanneld())
	}
	for _, h := range rebooted {
		runsFromState(t, h)
	}
	connected(t, l)
	series := startPing(t, rebooted[0], rebooted[1])
	lab.Must(t, l.Kubernetes.Start(limited(t)))
	for _, h := range rebooted {
		says(t, h, "/readyz", "!running from state")
		awaitCondition(t, l, h)
	}
	lab.NothingLost(t, series)
	connected(t, l)
	if now := annotationOf(t, l, rebooted[0], "backend-data"); now != data {
		t.Errorf("data %s, want %s as before", now, data)
	}

	// A Node that was made anew with another range: the store wins.
	h := rebooted[0]
	lab.Must(t, h.Stop())
	lab.Must(t, l.Kubernetes.API.DeleteNode(t.Context(), h.Name))
	lab.Must(t, l.Kubernetes.API.CreateNode(t.Context(), h.Name, "10.244.200.0/24", "fd00:10:244:c800::/64"))
	lab.Must(t, l.Kubernetes.Stop())
	lab.Must(t, h.StartFlanneld())
	runsFromState(t, h)
	lab.Must(t, l.Kubernetes.Start(limited(t)))
	eventually.Says(t, func() (string, bool) {
		now, err := h.Subnet()
		return fmt.Sprint(now, err), err == nil && now[0].String() == "10.244.200.0/24"
	})
}
