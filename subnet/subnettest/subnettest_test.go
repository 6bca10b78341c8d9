package subnettest

import (
	"net/netip"
	"sync/atomic"
	"testing"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// inMemory adapts a Store to the suite.
type inMemory struct {
	*Store
	seed atomic.Uint64
}

func (h *inMemory) Manager(_ *testing.T, beforeCreate func(ipfam.Pair[netip.Prefix])) subnet.Manager {
	m := h.Store.Manager(h.seed.Add(1))
	m.BeforeCreate = beforeCreate
	return m
}

func (h *inMemory) SetConfig(_ *testing.T, text string)             { h.Store.SetConfig(text) }
func (h *inMemory) Put(_ *testing.T, l subnet.Lease, r bool)        { h.Store.Put(l, r) }
func (h *inMemory) Create(_ *testing.T, l subnet.Lease) bool        { return h.Store.Create(l) }
func (h *inMemory) Delete(_ *testing.T, s ipfam.Pair[netip.Prefix]) { h.Store.Delete(s) }
func (h *inMemory) SetReachable(_ *testing.T, reachable bool)       { h.Store.SetReachable(reachable) }
func (h *inMemory) Get(_ *testing.T, s ipfam.Pair[netip.Prefix]) (subnet.Lease, bool, bool) {
	return h.Store.Get(s)
}

func TestStoreInMemory(t *testing.T) {
	Conformance(t, func(*testing.T) Harness { return &inMemory{Store: NewStore()} })
}
