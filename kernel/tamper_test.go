package kernel_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"flannel/internal/testkit/nstest"
	"flannel/kernel"
)

// follow runs the event loop of k until the test ends. The channel gets a
// value when something changed.
func follow(t testing.TB, k *kernel.Reconciler) <-chan struct{} {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	changed := make(chan struct{}, 1)
	done := make(chan error)
	go func() {
		done <- k.Run(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: got %v, want that the context was cancelled", err)
		}
	})
	wait(t, changed) // The event socket is open.
	return changed
}

func wait(t testing.TB, changed <-chan struct{}) {
	t.Helper()
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Fatal("no event within 10 s")
	}
}

// heal passes until the kernel holds want: an event per change may come.
func heal(t testing.TB, n *node, changed <-chan struct{}, state kernel.State, want string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case <-changed:
			_, err := n.Apply(t.Context(), state, false)
			if got := n.Dump(); got == want && err == nil {
				return
			}
		case <-deadline:
			t.Fatalf("not healed within 10 s; got:\n%s\nwant:\n%s", n.Dump(), want)
		}
	}
}

func TestTamperingHeals(t *testing.T) {
	tests := []struct {
		name   string
		tamper func(ns *nstest.NS)
	}{
		{"route deleted", func(ns *nstest.NS) { ns.IP("route del 10.5.2.0/24") }},
		{"IPv6 route deleted", func(ns *nstest.NS) { ns.IP("-6 route del fd00:5:0:2::/64") }},
		{"routes flushed", func(ns *nstest.NS) { ns.IP("route flush proto 70") }},
		{"main table flushed", func(ns *nstest.NS) {
			ns.IP("route flush table main")
			ns.IP("-6 route flush table main")
			// What is not ours comes back by other hands.
			ns.IP("route add 192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.1")
			ns.IP("-6 route add 2001:db8::/64 dev eth0 proto kernel metric 256")
			ns.IP("-6 route add fd00:5:0:1:: dev flannel-v6.1 proto kernel metric 256")
		}},
		{"route sent elsewhere", func(ns *nstest.NS) { ns.IP("route replace 10.5.2.0/24 via 10.5.3.0 dev flannel.1 onlink proto 70") }},
		{"route replaced by an unmarked one", func(ns *nstest.NS) { ns.IP("route replace 10.5.2.0/24 dev flannel.1") }},
		{"IPv6 route replaced by an unmarked one", func(ns *nstest.NS) { ns.IP("-6 route replace fd00:5:0:2::/64 dev flannel-v6.1 metric 1024") }},
		{"IPv6 route joined by another next hop", func(ns *nstest.NS) { ns.IP("-6 route append fd00:5:0:2::/64 via 2001:db8::9 metric 1024") }},
		{"route of our protocol in front", func(ns *nstest.NS) { ns.IP("route prepend 10.5.2.0/24 via 192.0.2.7 proto 70 metric 3") }},
		{"route of our protocol behind", func(ns *nstest.NS) { ns.IP("route append 10.5.2.0/24 via 192.0.2.7 proto 70 metric 3") }},
		{"route of our protocol added", func(ns *nstest.NS) { ns.IP("route add 10.5.77.0/24 via 192.0.2.7 proto 70") }},
		{"neighbor deleted", func(ns *nstest.NS) { ns.IP("neigh del 10.5.2.0 dev flannel.1") }},
		{"neighbor with another MAC", func(ns *nstest.NS) {
			ns.IP("neigh replace 10.5.2.0 dev flannel.1 lladdr 02:00:00:00:99:99 nud permanent")
		}},
		{"neighbor not permanent", func(ns *nstest.NS) {
			ns.IP("neigh replace fd00:5:0:2:: dev flannel-v6.1 lladdr 02:00:00:00:00:02 nud stale")
		}},
		{"neighbor added", func(ns *nstest.NS) {
			ns.IP("neigh add 10.5.9.9 dev flannel.1 lladdr 02:00:00:00:99:99 nud permanent")
		}},
		{"FDB entry deleted", func(ns *nstest.NS) { ns.Bridge("fdb del 02:00:00:00:00:02 dev flannel.1") }},
		{"FDB entry with another host", func(ns *nstest.NS) { ns.Bridge("fdb replace 02:00:00:00:00:02 dev flannel.1 dst 192.0.2.99") }},
		{"FDB entry with another port", func(ns *nstest.NS) {
			ns.Bridge("fdb replace 02:00:00:00:00:02 dev flannel.1 dst 192.0.2.2 port 4789 self permanent")
		}},
		{"FDB entry with another VNI", func(ns *nstest.NS) {
			ns.Bridge("fdb replace 02:00:00:00:00:02 dev flannel.1 dst 192.0.2.2 vni 9 self permanent")
		}},
		{"FDB entry via another device", func(ns *nstest.NS) {
			ns.Bridge("fdb replace 02:00:00:00:00:02 dev flannel.1 dst 192.0.2.2 via eth0-peer self permanent")
		}},
		{"FDB entry with a nexthop", func(ns *nstest.NS) {
			ns.IP("nexthop add id 1 via 192.0.2.2 fdb")
			ns.IP("nexthop add id 2 group 1 fdb")
			ns.Bridge("fdb del 02:00:00:00:00:02 dev flannel.1")
			ns.Bridge("fdb add 02:00:00:00:00:02 dev flannel.1 nhid 2 self permanent")
		}},
		{"FDB entries for every MAC added", func(ns *nstest.NS) {
			ns.Bridge("fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.0.2.98 self permanent")
			ns.Bridge("fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.0.2.99 self permanent")
		}},
		{"FDB entry added", func(ns *nstest.NS) {
			ns.Bridge("fdb add 02:00:00:00:99:99 dev flannel.1 dst 192.0.2.99 self permanent")
		}},
		{"device deleted", func(ns *nstest.NS) { ns.DelLink("flannel.1") }},
		{"both devices deleted", func(ns *nstest.NS) { ns.DelLink("flannel.1"); ns.DelLink("flannel-v6.1") }},
		{"device down", func(ns *nstest.NS) { ns.Down("flannel.1") }},
		{"IPv6 device down", func(ns *nstest.NS) { ns.Down("flannel-v6.1") }},
		{"device down and up", func(ns *nstest.NS) { ns.Down("flannel-v6.1"); ns.Up("flannel-v6.1") }},
		{"device renamed", func(ns *nstest.NS) { ns.Down("flannel.1"); ns.IP("link set flannel.1 name other") }},
		{"MTU changed", func(ns *nstest.NS) { ns.IP("link set flannel.1 mtu 1400") }},
		{"MAC changed", func(ns *nstest.NS) { ns.IP("link set flannel.1 address 02:00:00:00:88:88") }},
		{"alias changed", func(ns *nstest.NS) { ns.IP("link set flannel.1 alias mine") }},
		{"tunnel from another address", func(ns *nstest.NS) { ns.IP("link set flannel.1 type vxlan id 1 local 192.0.2.50") }},
		{"tunnel over another device", func(ns *nstest.NS) { ns.IP("link set flannel.1 type vxlan id 1 dev eth0-peer") }},
		{"learning turned on", func(ns *nstest.NS) { ns.IP("link set flannel.1 type vxlan id 1 learning") }},
		{"address removed", func(ns *nstest.NS) { ns.IP("addr del 10.5.1.0/32 dev flannel.1") }},
		{"IPv6 address removed", func(ns *nstest.NS) { ns.IP("addr del fd00:5:0:1::/128 dev flannel-v6.1") }},
		{"address added", func(ns *nstest.NS) { ns.IP("addr add 10.5.1.7/32 dev flannel.1") }},
		{"other vxlan device in its place", func(ns *nstest.NS) {
			ns.DelLink("flannel.1")
			ns.IP("link add flannel.1 type vxlan id 9 dstport 8472 dev eth0")
		}},
		{"bridge in its place", func(ns *nstest.NS) {
			ns.DelLink("flannel.1")
			ns.AddBridge("flannel.1")
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := newNode(t)
			changed := follow(t, n.Reconciler)
			state := dual(n.uplink, 2, 3)
			apply(t, n, state)
			want := n.Dump()
			test.tamper(n.NS)
			heal(t, n, changed, state, want)
			n.Invalidate()
			if stats := apply(t, n, state); stats.Changed() != 0 {
				t.Errorf("the pass after healing changed something: %+v", stats)
			}
		})
	}
}

func TestDeviceIsTakenOutOfABridge(t *testing.T) {
	n := newNode(t)
	n.AddBridge("br0")
	changed := follow(t, n.Reconciler)
	state := dual(n.uplink, 2, 3)
	apply(t, n, state)
	want := n.Dump()
	n.IP("link set flannel.1 master br0")
	if n.Dump() == want {
		t.Fatal("the dump does not show the bridge")
	}
	heal(t, n, changed, state, want)
	settle(t, n, changed)
	apply(t, n, state)
	before := n.Counters().Tampering
	n.IP("link set eth0-peer master br0") // Nobody's business.
	settle(t, n, changed)
	if got := n.Counters().Tampering - before; got != 1 {
		t.Errorf("got %d events taken for tampering, want only the one of settle", got)
	}
}

func TestUplinkTakesDirectRoutesAway(t *testing.T) {
	tests := []struct {
		name   string
		tamper func(ns *nstest.NS)
	}{
		{"down and up", func(ns *nstest.NS) { ns.Down("eth0"); ns.Up("eth0") }},
		{"address removed and added", func(ns *nstest.NS) {
			ns.IP("addr del 192.0.2.1/24 dev eth0")
			ns.AddAddr("eth0", "192.0.2.1/24")
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := newNode(t)
			n.IP("addr del 2001:db8::1/64 dev eth0") // It does not survive link-down.
			changed := follow(t, n.Reconciler)
			state := single(n.uplink, 2)
			state.Routes = append(state.Routes, kernel.Route{Dst: subnet4(9), Via: public4(9), Dev: "eth0"})
			apply(t, n, state)
			want := n.Dump()
			test.tamper(n.NS)
			if strings.Contains(n.Dump(), "10.5.9.0/24") {
				t.Fatal("the route is still there: the test is pointless")
			}
			heal(t, n, changed, state, want)
		})
	}
}

func TestRouteTakenByAnotherIsNoticedAndLeft(t *testing.T) {
	n := newNode(t)
	changed := follow(t, n.Reconciler)
	state := single(n.uplink, 2, 3)
	apply(t, n, state)
	n.IP("route replace 10.5.2.0/24 via 192.0.2.7")
	wait(t, changed)
	stats, err := n.Apply(t.Context(), state, false)
	if err == nil || !strings.Contains(err.Error(), "via 192.0.2.7 dev eth0") || stats.Failed[subnet4(2)] == nil {
		t.Errorf("got %+v, %v; want an error that names the other route", stats, err)
	}
	n.IP("route del 10.5.2.0/24 via 192.0.2.7")
	apply(t, n, state)
	if got := n.outOf(t, "10.5.2.9"); got != "flannel.1" {
		t.Errorf("packets leave by %q, want flannel.1", got)
	}
}

func TestARouteInTheWayThatIsRemovedIsNoticed(t *testing.T) {
	tests := map[string]struct {
		add, remove string
	}{
		"a route":              {"route add 10.5.2.0/24 via 192.0.2.7", "route del 10.5.2.0/24"},
		"a blackhole":          {"route add blackhole 10.5.2.0/24 proto static", "route del blackhole 10.5.2.0/24"},
		"of IPv6":              {"route add fd00:5:0:2::/64 via 2001:db8::7 proto static", "route del fd00:5:0:2::/64"},
		"a connected network":  {"addr add 10.5.2.1/24 dev docker0", "addr del 10.5.2.1/24 dev docker0"},
		"with its device":      {"addr add 10.5.2.1/24 dev docker0", "link del docker0"},
		"with its device down": {"addr add 10.5.2.1/24 dev docker0", "link set docker0 down"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.AddBridge("docker0")
			changed := follow(t, n.Reconciler)
			state := dual(n.uplink, 2, 3)
			n.IP(test.add)
			for range 2 { // Also after a retry.
				if _, err := n.Apply(t.Context(), state, false); err == nil {
					t.Fatal("nothing is in the way")
				}
			}
			for len(changed) > 0 {
				<-changed
			}
			n.IP("route add 10.5.7.0/24 via 192.0.2.7")
			n.IP("route del 10.5.7.0/24")
			if got := n.Counters().Tampering; got != 0 {
				t.Errorf("%d events of others taken for ours", got)
			}
			n.IP(test.remove)
			wait(t, changed)
			apply(t, n, state)
		})
	}
}

func TestTxChecksumOffloadStaysOff(t *testing.T) {
	n := newNode(t)
	changed := follow(t, n.Reconciler)
	state := single(n.uplink, 2)
	state.Devices[0].TxChecksumOff = true
	off := func() bool {
		return strings.Contains(n.Tool("ethtool", "-k flannel.1"), "tx-checksumming: off")
	}
	apply(t, n, state)
	if !off() {
		t.Fatal("tx checksum offload is on")
	}
	n.Tool("ethtool", "-K flannel.1 tx on")
	if off() {
		t.Fatal("the tool did not turn it on")
	}
	for !off() {
		wait(t, changed)
		apply(t, n, state)
	}
	n.DelLink("flannel.1")
	for !n.HasLink("flannel.1") || !off() {
		wait(t, changed)
		apply(t, n, state)
	}
}

func TestOwnWritesAreNoTampering(t *testing.T) {
	n := newNode(t)
	changed := follow(t, n.Reconciler)
	moved := dual(n.uplink, 3, 4, 5)
	moved.FDB[0].Dst, moved.Neighbors[1].MAC = public4(88), mac(88)
	shrunk := dual(n.uplink, 3, 4)
	shrunk.Devices[0].MTU = 1400
	shrunk.Devices[0].Addrs[0] = host(subnet4(8))
	for i, state := range []kernel.State{dual(n.uplink), dual(n.uplink, 2, 3, 4, 5), moved, shrunk} {
		before := n.Counters().Tampering
		apply(t, n, state)
		settle(t, n, changed)
		if got := n.Counters().Tampering - before; got != 1 {
			t.Errorf("state %d: got %d events taken for tampering, want only the one of settle", i, got)
		}
		apply(t, n, state)
	}
}

// settle waits until all events so far have been compared: it tampers itself
// and waits for that to be seen.
func settle(t *testing.T, n *node, changed <-chan struct{}) {
	t.Helper()
	for len(changed) > 0 {
		<-changed
	}
	before := n.Counters().Tampering
	n.IP("neigh add 10.5.66.66 dev flannel.1 lladdr 02:00:00:00:99:99 nud permanent")
	for n.Counters().Tampering == before {
		wait(t, changed)
	}
}
