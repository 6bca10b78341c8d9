package kernel_test

import (
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"flannel/internal/testkit/eventually"
	"flannel/internal/testkit/nstest"
	"flannel/kernel"
)

// send sends a datagram from inside the node, so that the kernel has to find
// out where the address is.
func (n *node) send(t *testing.T, to string) {
	t.Helper()
	var err error
	n.Do(func() {
		var conn net.Conn
		if conn, err = net.Dial("udp", net.JoinHostPort(to, "9")); err == nil {
			_, err = conn.Write([]byte("x"))
			_ = conn.Close()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMissPutsADeletedPeerBack(t *testing.T) {
	n := newNode(t)
	follow(t, n.Reconciler)
	apply(t, n, dual(n.uplink, 2))
	want := n.Dump()
	for _, test := range []struct{ gateway, dev, to string }{
		{"10.5.2.0", "flannel.1", "10.5.2.9"},
		{"fd00:5:0:2::", "flannel-v6.1", "fd00:5:0:2::9"},
	} {
		before := n.Counters().MissesAnswered
		n.IP("neigh del", test.gateway, "dev", test.dev)
		n.Bridge("fdb del 02:00:00:00:00:02 dev", test.dev)
		n.send(t, test.to)
		// The first packet asks; nobody makes a pass.
		eventually.True(t, "answer for "+test.to, func() bool { return n.Counters().MissesAnswered > before })
		if got := n.Dump(); got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	}
}

func TestMissInstallsAPeerOnDemand(t *testing.T) {
	n := newNode(t)
	installed := make(chan netip.Prefix, 10)
	n.Reconciler = open(t, n.NS, kernel.Options{Scope: scope, Installed: func(p netip.Prefix) { installed <- p }})
	follow(t, n.Reconciler)
	state := single(n.uplink)
	state.Routes = []kernel.Route{{Dst: network4, Dev: "flannel.1", Metric: 100}}
	for _, peer := range []int{2, 3} {
		var full kernel.State
		addPeer(&full, "flannel.1", subnet4(peer), public4(peer), mac(peer))
		state.OnDemandPeers = append(state.OnDemandPeers, kernel.OnDemandPeer{
			Subnet: subnet4(peer), Route: full.Routes[0], Neighbor: full.Neighbors[0], FDB: full.FDB[0],
		})
	}
	apply(t, n, state)
	if strings.Contains(n.Dump(), "10.5.2.0") {
		t.Fatal("the peer is there although nobody asked")
	}
	n.send(t, "10.5.2.9")
	eventually.True(t, "answer", func() bool { return n.Counters().MissesAnswered > 0 })
	for _, entry := range peerEntries {
		if !strings.Contains(n.Dump(), entry) {
			t.Errorf("%q is missing in:\n%s", entry, n.Dump())
		}
	}
	if n := len(installed); n != 1 || <-installed != subnet4(2) {
		t.Errorf("%d peers are reported as installed", n)
	}
	n.Invalidate()
	if stats := apply(t, n, state); stats.Changed() != 0 {
		t.Errorf("a resync changed what was asked for: %+v", stats)
	}
	state.OnDemandPeers = state.OnDemandPeers[1:]
	apply(t, n, state)
	if strings.Contains(n.Dump(), "10.5.2.0") {
		t.Errorf("the entries stay although the peer is gone:\n%s", n.Dump())
	}

	n.send(t, "10.5.200.9")
	eventually.True(t, "unknown address", func() bool { return n.Counters().MissesUnknown > 0 })
}

// missMessage is what the kernel sends for 10.5.2.9 on the device 7.
const missMessage = "02000000" + "07000000" + "0100" + "00" + "01" + "0800" + "0100" + "0a050209"

func TestParseMiss(t *testing.T) {
	tests := []struct {
		name, message string
		want          kernel.Miss
	}{
		{"IPv4", missMessage, kernel.Miss{Index: 7, Addr: netip.MustParseAddr("10.5.2.9")}},
		{"probe of a known neighbor", strings.Replace(missMessage, "0100000108", "1000000108", 1), kernel.Miss{}},
		{"without address", missMessage[:24], kernel.Miss{}},
		{"address of another family", "0a" + missMessage[2:], kernel.Miss{}},
		{"cut", missMessage[:20], kernel.Miss{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			raw, err := hex.DecodeString(test.message)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := kernel.ParseMiss(raw)
			if got != test.want || ok != (test.want != kernel.Miss{}) {
				t.Errorf("got %v, %v, want %v", got, ok, test.want)
			}
		})
	}
}

func FuzzMiss(f *testing.F) {
	raw, err := hex.DecodeString(missMessage)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := kernel.ParseMiss(b)
		if ok != m.Addr.IsValid() || ok && m.Index <= 0 {
			t.Errorf("got %v, %v", m, ok)
		}
	})
}

// demanding is a node that reaches these peers on demand.
func demanding(uplink int, peers ...int) kernel.State {
	state := single(uplink)
	state.Routes = []kernel.Route{{Dst: network4, Dev: "flannel.1"}}
	state.CatchAllRoutes = []kernel.CatchAllRoute{{Dev: "flannel.1", Network: network4, Own: subnet4(1)}}
	for _, peer := range peers {
		var full kernel.State
		addPeer(&full, "flannel.1", subnet4(peer), public4(peer), mac(peer))
		state.OnDemandPeers = append(state.OnDemandPeers, kernel.OnDemandPeer{
			Subnet: subnet4(peer), Route: full.Routes[0], Neighbor: full.Neighbors[0], FDB: full.FDB[0],
		})
	}
	return state
}

func TestPeersGoWhenNobodyTalksToThem(t *testing.T) {
	ns := nstest.New(t)
	uplink := ns.AddUplink("eth0", "192.0.2.1/24")
	// A busy machine may take longer to look at the tables than a peer stays in
	// them.
	installed := make(chan struct{}, 1)
	n := &node{NS: ns, uplink: uplink, Reconciler: open(t, ns, kernel.Options{
		Scope: scope, Unused: 300 * time.Millisecond, Installed: func(netip.Prefix) {
			select {
			case installed <- struct{}{}:
			default:
			}
		},
	})}
	changed := follow(t, n.Reconciler)
	state := demanding(uplink, 2, 3)
	apply(t, n, state)
	idle := n.Dump()
	comesAndGoes := func() {
		t.Helper()
		n.send(t, "10.5.2.9")
		wait(t, installed)
		eventually.Says(t, func() (string, bool) {
			select {
			case <-changed: // Nothing is removed before a pass has looked.
				apply(t, n, state)
			default:
			}
			got := n.Dump()
			return "the end of the peer; got:\n" + got, got == idle
		})
	}
	comesAndGoes()
	n.Invalidate()
	if stats := apply(t, n, state); stats.Changed() != 0 {
		t.Errorf("a resync changed %+v", stats)
	}
	// It comes back when somebody asks again, and goes again, also over a device
	// that was made anew.
	n.IP("link del flannel.1")
	n.Invalidate()
	apply(t, n, state)
	comesAndGoes()
}

// TestEntriesThatWereAskedForStayTogether takes one away, or changes it: the
// kernel does not ask while it has the others.
func TestEntriesThatWereAskedForStayTogether(t *testing.T) {
	n := newNode(t)
	follow(t, n.Reconciler)
	state := demanding(n.uplink, 2, 3)
	apply(t, n, state)
	n.send(t, "10.5.2.9")
	eventually.True(t, "the peer", func() bool { return strings.Contains(n.Dump(), peerEntries[0]) })
	want := n.Dump()
	for _, remove := range []func(){
		func() { n.Bridge("fdb del 02:00:00:00:00:02 dev flannel.1") },
		func() { n.IP("neigh del 10.5.2.0 dev flannel.1") },
		func() { n.IP("route del 10.5.2.0/24") },
	} {
		remove()
		n.Invalidate()
		apply(t, n, state)
		if got := n.Dump(); got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	}
	// The peer comes back with another MAC.
	state = demanding(n.uplink, 2, 3)
	state.OnDemandPeers[0].FDB.MAC, state.OnDemandPeers[0].Neighbor.MAC = mac(9), mac(9)
	apply(t, n, state)
	if got, want := n.Dump(), strings.ReplaceAll(want, mac(2).String(), mac(9).String()); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestWhatNobodyHasIsClosed(t *testing.T) {
	n := newNode(t)
	follow(t, n.Reconciler)
	apply(t, n, demanding(n.uplink, 2, 3))
	n.send(t, "10.5.200.9")
	eventually.True(t, "the gap", func() bool { return strings.Contains(n.Dump(), "blackhole 10.5.128.0/17") })
	if text := n.IP("neigh show dev flannel.1"); strings.Contains(text, "10.5.200.9") {
		t.Errorf("the address stays:\n%s", text)
	}
	n.Invalidate()
	if stats := apply(t, n, demanding(n.uplink, 2, 3)); stats.Changed() != 0 {
		t.Errorf("a resync changed %+v", stats)
	}
	apply(t, n, demanding(n.uplink, 2, 3, 200))
	if strings.Contains(n.Dump(), "blackhole") {
		t.Errorf("a gap stays where a lease is:\n%s", n.Dump())
	}
	n.send(t, "10.5.200.9")
	eventually.True(t, "the new peer", func() bool { return strings.Contains(n.Dump(), "10.5.200.0/24 via 10.5.200.0") })
}
