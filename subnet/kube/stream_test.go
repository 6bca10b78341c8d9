package kube

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"flannel/internal/testkit/kubetest"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

// book is a log that several goroutines write.
type book struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// watches checks that a set arrives, and whether it came as a list because the
// server has no streams.
func watches(t *testing.T, server *kubetest.Server, listed bool) {
	h := newHarness(t, server)
	h.must(t, h.server.API.CreateNode(h.ctx(t), "one", "10.5.1.0/24"))
	var log book
	o := h.options(t, "one")
	o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.Level(-10)}))
	m := start(t, o)
	own := h.acquire(t, m)
	w := subnettest.Watch(t, m)
	w.AwaitSubnets(own.Subnet)
	h.annotate(t, "one", "public-ip", "192.0.2.9")
	w.Await("the changed address", func(leases []*subnet.Lease) bool {
		return len(leases) == 1 && leases[0].Attrs.PublicIP[0].String() == "192.0.2.9"
	})
	if got := strings.Contains(log.String(), "Falling back to regular list"); got != listed {
		t.Errorf("listed: %t, want %t", got, listed)
	}
}

func TestAServerWithoutStreams(t *testing.T) {
	watches(t, kubetest.Start(t, kubetest.Options{Flags: []string{"--feature-gates=WatchList=false"}}), true)
}
