package kernel_test

import (
	"strconv"
	"strings"
	"testing"

	"flannel/internal/testkit/nstest"
	"flannel/kernel"
)

func TestOverrunEndsInAFullPass(t *testing.T) {
	ns := nstest.New(t)
	up := ns.AddUplink("eth0", "192.0.2.1/24")
	k := open(t, ns, kernel.Options{Scope: scope, EventBuffer: 1})
	changed := follow(t, k)
	var peers []int
	for n := 2; n < 250; n++ {
		peers = append(peers, n)
	}
	state := single(up, peers...)
	apply(t, k, state)
	want := ns.Dump()
	for k.Counters().Overruns == 0 {
		ns.IP("neigh flush dev flannel.1 nud permanent")
		wait(t, changed)
		apply(t, k, state)
	}
	n := &node{NS: ns, Reconciler: k}
	ns.IP("neigh del 10.5.2.0 dev flannel.1")
	heal(t, n, changed, state, want)
}

func TestForeignEventsWakeNothing(t *testing.T) {
	n := newNode(t)
	changed := follow(t, n.Reconciler)
	state := single(n.uplink, 2)
	apply(t, n, state)
	settle(t, n, changed)
	apply(t, n, state)
	before := n.Counters()
	n.IP("route add 198.51.100.0/24 via 192.0.2.9")
	n.IP("route replace 198.51.100.0/24 via 192.0.2.8")
	n.IP("route del 198.51.100.0/24")
	n.IP("route add 198.51.100.0/24 via 192.0.2.9 proto 70")
	n.IP("neigh add 192.0.2.77 dev eth0 lladdr 02:00:00:00:77:77 nud permanent")
	n.IP("neigh del 192.0.2.77 dev eth0")
	n.IP("addr add 192.0.2.50/24 dev eth0")
	n.IP("link set eth0 mtu 1400")
	n.AddVeth("pod1", "pod1-peer")
	n.DelLink("pod1")
	settle(t, n, changed)
	if got := n.Counters().Tampering - before.Tampering; got != 1 {
		t.Errorf("got %d events taken for tampering, want only the one of settle", got)
	}
}

func TestRunEndsWithManyDevices(t *testing.T) {
	n := newNode(t)
	state := single(n.uplink, 2)
	for i := range 120 { // More than one filter names.
		name := "d" + strconv.Itoa(i)
		n.AddBridge(name)
		state.Routes = append(state.Routes, kernel.Route{Dst: subnet4(100 + i), Dev: name})
	}
	changed := follow(t, n.Reconciler)
	apply(t, n, state)
	n.IP("route del 10.5.100.0/24")
	for !strings.Contains(n.Dump(), "10.5.100.0/24") {
		wait(t, changed)
		apply(t, n, state)
	}
}
