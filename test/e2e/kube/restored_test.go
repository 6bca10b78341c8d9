package kube

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

// TestAStoreFromABackup gives the API server an older state of its store: the
// versions of its objects count again from there, and a watch that goes on
// from a later one would hear nothing until they have caught up.
func TestAStoreFromABackup(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	up(t, l)
	h, other := l.Hosts[0], l.Hosts[1]
	snapshot := filepath.Join(t.TempDir(), "snapshot.db")
	lab.Must(t, l.Etcd.Snapshot(t.Context(), snapshot))
	for i := range 300 {
		// It means nothing to the network.
		lab.Must(t, l.Kubernetes.API.Annotate(t.Context(), other.Name, map[string]any{"example.com/count": strconv.Itoa(i)}))
	}
	// Whoever has seen this has seen all.
	annotate(t, l, h, map[string]any{"backend-type": nil})
	awaitAnnotation(t, l, h, "backend-type", "vxlan")
	series := startPing(t, h, other)

	lab.Must(t, l.Kubernetes.Stop())
	lab.Must(t, l.Etcd.Kill())
	lab.Must(t, l.Etcd.Restore(t.Context(), snapshot))
	lab.Must(t, l.Etcd.Start(limited(t)))
	lab.Must(t, l.Kubernetes.Start(limited(t)))
	// A change arrives that is far below the versions seen before, from others
	// and on the own Node.
	addPeer(t, l, peer{name: "late", v4: "10.244.201.0/24", ip4: "172.31.1.210", mac4: "02:00:00:00:02:01"})
	eventually.Says(t, func() (string, bool) {
		routes, err := h.Exec(t.Context(), "ip", "route", "show", "proto", "70")
		return routes + h.Log(), err == nil && strings.Contains(routes, "10.244.201.0/24")
	})
	annotate(t, l, h, map[string]any{"public-ip": nil})
	awaitAnnotation(t, l, h, "public-ip", h.Addr(0).String())
	lab.NothingLost(t, series)
	connected(t, l)
}
