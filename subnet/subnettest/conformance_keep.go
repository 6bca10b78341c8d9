package subnettest

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/subnet"
)

func deletedIsPublishedAgain(t *testing.T, h Harness) {
	for _, config := range []string{IPv4Config, DualConfig} {
		h.SetConfig(t, config)
		m := node(t, h)
		own := acquire(t, m, Attrs(config, 1), none())
		_, stop := Background(t, Keep(m, own))
		for range 2 {
			h.Delete(t, own.Subnet)
			eventually.True(t, "the lease is there again", func() bool {
				l, _, found := h.Get(t, own.Subnet)
				return found && l.Attrs == own.Attrs
			})
		}
		stop()
		h.Delete(t, own.Subnet)
	}
}

func createdAgainIsReported(t *testing.T, h Harness) {
	h.SetConfig(t, IPv4Config)
	m := node(t, h)
	own := acquire(t, m, Attrs(IPv4Config, 1), none())
	reported := make(chan subnet.Lease, 10)
	Background(t, func(ctx context.Context) error {
		return m.Keep(ctx, own, func(l subnet.Lease) { reported <- l })
	})
	h.Delete(t, own.Subnet)
	select {
	case got := <-reported:
		if l, _, found := h.Get(t, own.Subnet); !found || got.Precedence != l.Precedence || got.Subnet != own.Subnet {
			t.Errorf("reported %+v, the store has %+v", got, l)
		}
	case <-time.After(patience):
		t.Error("nothing was reported")
	}
}

// awaitLoss waits for Keep to end.
func awaitLoss(t *testing.T, result <-chan error) {
	t.Helper()
	select {
	case err := <-result:
		if !errors.Is(err, subnet.ErrLeaseLost) {
			t.Errorf("Keep = %v, want ErrLeaseLost", err)
		}
	case <-time.After(patience):
		t.Fatal("Keep does not notice that the lease is another's")
	}
}

func takenOverIsLost(t *testing.T, h Harness) {
	h.SetConfig(t, IPv4Config)
	m := node(t, h)
	own := acquire(t, m, Attrs(IPv4Config, 1), none())
	result, _ := Background(t, Keep(m, own))
	thief := subnet.Lease{Subnet: own.Subnet, Attrs: Attrs(IPv4Config, 66)}
	h.Put(t, thief, false)
	awaitLoss(t, result)
	other := acquire(t, m, Attrs(IPv4Config, 1), own.Subnet)
	disjoint(t, []subnet.Lease{thief, other})
	if l, _, _ := h.Get(t, own.Subnet); l.Attrs != thief.Attrs {
		t.Errorf("the other node's record was overwritten with %+v", l)
	}
}

// undecodableIsReplaced garbles the value while it is kept, while nobody keeps
// it, and between two runs of the node.
func undecodableIsReplaced(t *testing.T, h Harness) {
	h.SetConfig(t, DualConfig)
	m := node(t, h)
	own := acquire(t, m, Attrs(DualConfig, 1), none())
	mended := func() {
		t.Helper()
		eventually.True(t, "the lease is there again", func() bool {
			l, reservation, found := h.Get(t, own.Subnet)
			return found && !reservation && l.Attrs == own.Attrs
		})
	}
	garble := func(value string) {
		h.Put(t, subnet.Lease{Subnet: own.Subnet, Invalid: value}, true)
	}
	_, stop := Background(t, Keep(m, own))
	for _, value := range []string{"odd on purpose", `{"X":"odd on purpose"}`} {
		garble(value)
		mended()
	}
	stop()
	garble("odd on purpose")
	for _, n := range []subnet.Manager{m, node(t, h)} {
		if again := acquire(t, n, own.Attrs, own.Subnet); again.Subnet != own.Subnet {
			t.Errorf("acquired %v, had %v", again.Subnet, own.Subnet)
		}
		mended()
		garble("odd on purpose")
	}
	h.Delete(t, own.Subnet)
}

// deletedAndTakenIsLost deletes the lease while nobody keeps it.
func deletedAndTakenIsLost(t *testing.T, h Harness) {
	h.SetConfig(t, DualConfig)
	m := node(t, h)
	own := acquire(t, m, Attrs(DualConfig, 1), none())
	h.Delete(t, own.Subnet)
	thief := subnet.Lease{Attrs: Attrs(IPv4Config, 66)}
	thief.Subnet[ipfam.V4] = own.Subnet[ipfam.V4]
	h.Put(t, thief, false)
	result, _ := Background(t, Keep(m, own))
	awaitLoss(t, result)
	disjoint(t, []subnet.Lease{thief, acquire(t, m, Attrs(DualConfig, 1), own.Subnet)})
}

func watchSeesChanges(t *testing.T, h Harness) {
	h.SetConfig(t, DualConfig)
	m := node(t, h)
	w := Watch(t, m)
	w.AwaitSubnets()
	own := acquire(t, m, Attrs(DualConfig, 1), none())
	w.AwaitSubnets(own.Subnet)
	peer := subnet.Lease{Subnet: Subnets("10.5.88.0/24", "fd00:5:0:88::/64"), Attrs: Attrs(DualConfig, 2)}
	h.Put(t, peer, false)
	w.AwaitSubnets(own.Subnet, peer.Subnet)
	before := w.Last()

	changed := Attrs(DualConfig, 2)
	changed.PublicIP[ipfam.V4] = netip.MustParseAddr("192.0.2.77")
	peer.Attrs = changed
	h.Put(t, peer, false)
	w.Await("the changed attributes", func(leases []*subnet.Lease) bool {
		for _, l := range leases {
			if l.Subnet == peer.Subnet && l.Attrs == changed {
				return true
			}
		}
		return false
	})
	for _, l := range before {
		if l.Attrs == changed {
			t.Error("a set that was passed on has changed")
		}
	}
	h.Delete(t, peer.Subnet)
	w.AwaitSubnets(own.Subnet)
	h.Delete(t, own.Subnet)
	w.AwaitSubnets()
}

func outageLosesNothing(t *testing.T, h Harness) {
	h.SetConfig(t, IPv4Config)
	m, late := node(t, h), node(t, h)
	w := Watch(t, m)
	own := acquire(t, m, Attrs(IPv4Config, 1), none())
	result, _ := Background(t, Keep(m, own))
	w.AwaitSubnets(own.Subnet)

	h.SetReachable(t, false)
	// A short call during the outage ends with its context and no result.
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if leases, err := late.List(short); !errors.Is(err, context.DeadlineExceeded) || leases != nil {
		t.Errorf("List = %v, %v during the outage", leases, err)
	}
	var other subnet.Lease
	waiting, _ := Background(t, func(ctx context.Context) (err error) {
		other, err = late.Acquire(ctx, Attrs(IPv4Config, 2), Subnets("10.5.99.0/24"))
		return err
	})
	if last := w.Last(); len(last) != 1 {
		t.Errorf("the set is %v during the outage", last)
	}
	h.SetReachable(t, true)
	if err := <-waiting; err != nil {
		t.Errorf("Acquire = %v after the outage", err)
	}
	w.AwaitSubnets(own.Subnet, other.Subnet)
	select {
	case err := <-result:
		t.Errorf("Keep = %v", err)
	default:
	}
}
