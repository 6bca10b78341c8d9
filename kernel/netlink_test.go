package kernel_test

import (
	"context"
	"log/slog"
	"testing"

	"flannel/internal/testkit/nstest"
	"flannel/kernel"
)

// node is a namespace with an uplink and a connection to its kernel.
type node struct {
	*nstest.NS
	*kernel.Reconciler
	uplink int
}

func newNode(t testing.TB) *node {
	ns := nstest.New(t)
	uplink := ns.AddUplink("eth0", "192.0.2.1/24", "2001:db8::1/64")
	return &node{NS: ns, Reconciler: open(t, ns, kernel.Options{Scope: scope}), uplink: uplink}
}

func open(t testing.TB, ns *nstest.NS, o kernel.Options) *kernel.Reconciler {
	t.Helper()
	o.Log, o.Namespace = slog.New(slog.DiscardHandler), int(ns.Namespace)
	k, err := kernel.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

type applier interface {
	Apply(ctx context.Context, want kernel.State, hold bool) (kernel.Stats, error)
}

func apply(t testing.TB, k applier, want kernel.State) kernel.Stats {
	t.Helper()
	stats, err := k.Apply(t.Context(), want, false)
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

func TestApplyMakesTheKernelSo(t *testing.T) {
	n := newNode(t)
	stats := apply(t, n, dual(n.uplink, 2, 3))
	golden(t, n.Dump(), "testdata/dual_kernel.txt")
	if !stats.Listed {
		t.Error("the first pass must list the tables")
	}
	t.Log(stats)
	stats = apply(t, n, dual(n.uplink, 2, 3))
	if stats.Changed() != 0 || stats.Listed {
		t.Errorf("second pass: got %+v, want no change and no list", stats)
	}
	n.Invalidate()
	stats = apply(t, n, dual(n.uplink, 2, 3))
	if stats.Changed() != 0 || !stats.Listed || len(stats.Drift) != 0 {
		t.Errorf("resync: got %+v, want a list and no change", stats)
	}
}
