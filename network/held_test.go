package network

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"flannel/kernel"
	"flannel/subnet"
)

// earlierLeases shows what was known earlier, this node's own lease alone,
// before what the store has.
type earlierLeases struct {
	subnet.Manager
	answers chan struct{}
	own     func() *subnet.Lease
}

func (m earlierLeases) Watch(ctx context.Context, set func(subnet.Snapshot)) error {
	set(subnet.Snapshot{Leases: []*subnet.Lease{m.own()}, Unconfirmed: true})
	select {
	case <-m.answers:
	case <-ctx.Done():
		return ctx.Err()
	}
	return m.Manager.Watch(ctx, set)
}

// A peer that came after the state was written has its route already.
func TestAHeldSnapshotDeletesNothing(t *testing.T) {
	n := newNode(t)
	m := earlierLeases{n.Manager, make(chan struct{}), func() *subnet.Lease { return n.own.Load() }}
	n.Manager = m
	n.kernel.AddRoute(kernel.Route{
		Dst: netip.MustParsePrefix("10.5.66.0/24"), Via: netip.MustParseAddr("192.0.2.66"), Dev: "eth0",
	}, kernel.RouteProtocol)
	n.start()
	for range 2 {
		n.wake()
		pass := n.last()
		n.await("another pass", func() bool { return n.last() != pass })
	}
	if !strings.Contains(n.kernel.String(), "10.5.66.0/24") {
		t.Error("the route of a peer that is not known any more has gone")
	}
	close(m.answers)
	n.await("the stale route gone", func() bool { return !strings.Contains(n.kernel.String(), "10.5.66.0/24") })
}

func TestAHeldSnapshotCountsForTheGuard(t *testing.T) {
	var g guard
	g.start(held(some(30, 31)), guarded)
	wantLeases(t, g.admit(subnet.Snapshot{Leases: some(0, 20), Unconfirmed: true}, ownSubnet), some(0, 20))
	if !g.holdDeletions() || g.doubts() {
		t.Error("a held snapshot has decided what is lost")
	}
	wantLeases(t, g.admit(subnet.Snapshot{Leases: some(0, 5)}, ownSubnet), some(0, 20))
	if !g.doubts() {
		t.Error("a mass loss was believed")
	}
}
