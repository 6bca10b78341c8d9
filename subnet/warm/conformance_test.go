package warm

import (
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/statedir"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

// harness is the store in memory, seen through a Manager without a state.
type harness struct {
	store *subnettest.Store
	seed  uint64
	down  atomic.Bool
}

func (h *harness) Manager(t *testing.T, beforeCreate func(ipfam.Pair[netip.Prefix])) subnet.Manager {
	h.seed++
	inner := h.store.Manager(h.seed)
	inner.BeforeCreate = beforeCreate
	m := New(identified{Manager: inner, identity: "one"}, Options{
		Log: slog.New(slog.DiscardHandler), Dir: statedir.Open(slog.New(slog.DiscardHandler), t.TempDir(), "", "node"),
		Check: func(*subnet.Config) error { return nil }, Away: h.down.Load, Running: func(time.Time) {},
	})
	subnettest.Background(t, m.Run)
	return m
}

func (h *harness) SetConfig(_ *testing.T, text string) { h.store.SetConfig(text) }

func (h *harness) Put(_ *testing.T, l subnet.Lease, reservation bool) { h.store.Put(l, reservation) }

func (h *harness) Create(_ *testing.T, l subnet.Lease) bool { return h.store.Create(l) }

func (h *harness) Delete(_ *testing.T, subnets ipfam.Pair[netip.Prefix]) { h.store.Delete(subnets) }

func (h *harness) Get(_ *testing.T, subnets ipfam.Pair[netip.Prefix]) (subnet.Lease, bool, bool) {
	return h.store.Get(subnets)
}

func (h *harness) SetReachable(_ *testing.T, reachable bool) {
	h.down.Store(!reachable)
	h.store.SetReachable(reachable)
}

func TestAStoreBehindItIsAsBefore(t *testing.T) {
	subnettest.Conformance(t, func(t *testing.T) subnettest.Harness { return &harness{store: subnettest.NewStore()} })
}
