package kube

import (
	"testing"

	"flannel/internal/testkit/kubetest"
)

func knowsItsStoreAddr(t *testing.T, server *kubetest.Server) {
	h := newHarness(t, server)
	m := start(t, h.options(t, "nobody"))
	if _, err := m.List(h.ctx(t)); err != nil {
		t.Fatal(err)
	}
	if a := m.StoreAddrs(); len(a) != 1 || !a[0].IsLoopback() {
		t.Errorf("got %v, want the server's", a)
	}
}
