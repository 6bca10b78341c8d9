package fastpath

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"flannel/fastpath/conntrack"
	"flannel/kernel"
)

// fakeTable is conntrack with one entry.
type fakeTable struct {
	entry   conntrack.Entry
	err     error
	relaxed int
	timeout time.Duration
}

func (f *fakeTable) Get(conntrack.Tuple) (conntrack.Entry, error) { return f.entry, f.err }

func (f *fakeTable) Relax(conntrack.Tuple) error {
	f.relaxed++
	return f.err
}

func (f *fakeTable) SetTimeout(_ conntrack.Tuple, d time.Duration) error {
	f.timeout = d
	return f.err
}

func (f *fakeTable) List(each func(conntrack.Entry)) error {
	each(f.entry)
	return nil
}

// fakeMaps are the programs' maps.
type fakeMaps struct {
	flows map[bpfKey]bpfFlow
	ways  map[bpfKey]bpfWay
	// room is how many flows there is room for; zero means any number.
	room int
}

func (f *fakeMaps) permit(k bpfKey, v bpfFlow) error {
	if f.room > 0 && len(f.flows) >= f.room {
		return errors.New("full")
	}
	f.flows[k] = v
	return nil
}

func (f *fakeMaps) revoke(k bpfKey) error {
	delete(f.flows, k)
	return nil
}

func (f *fakeMaps) way(k bpfKey) (bpfWay, bool) {
	w, ok := f.ways[k]
	return w, ok
}

func (f *fakeMaps) forget(k bpfKey) { delete(f.ways, k) }

var (
	outward = conntrack.Tuple{
		Src: netip.MustParseAddrPort("10.5.1.2:4000"), Dst: netip.MustParseAddrPort("10.5.2.2:80"), Protocol: protocolTCP,
	}
	suitable = conntrack.Entry{
		Orig: outward, Reply: outward.Reverse(), TCPState: conntrack.Established, Timeout: 5 * time.Minute,
		Status: conntrack.SeenReply | conntrack.Assured | conntrack.Confirmed,
	}
)

const (
	deviceOfPeers = 7
	deviceOfPod   = 9
)

func newTestTracker(t *testing.T) (*tracker, *fakeTable, *fakeMaps) {
	table, maps := &fakeTable{entry: suitable}, &fakeMaps{flows: map[bpfKey]bpfFlow{}, ways: map[bpfKey]bpfWay{}}
	tr := newTracker(slog.New(slog.DiscardHandler), time.Minute, table, maps, newPeerTable(4))
	peers := map[netip.Prefix]bpfPeer{netip.MustParsePrefix("10.5.2.0/24"): {Out: deviceOfPeers}}
	if _, err := tr.setPeers(peers, func(peerChange) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return tr, table, maps
}

// sees reports one packet that has left the stack.
func (f *fakeMaps) sees(tr *tracker, tuple conntrack.Tuple, device uint32, at time.Duration) {
	f.ways[keyOf(tuple)] = bpfWay{Left: uint64(at), Device: device}
	tr.seen(bpfReport{Key: keyOf(tuple), Device: device}, at)
}

func TestWhichFlowsMayBeFast(t *testing.T) {
	tests := []struct {
		name   string
		change func(*conntrack.Entry)
		want   bool
	}{
		{"an established connection", func(*conntrack.Entry) {}, true},
		{"UDP", func(e *conntrack.Entry) {
			e.Orig.Protocol, e.Reply.Protocol, e.TCPState = 17, 17, 0
		}, true},
		{"without an answer", func(e *conntrack.Entry) { e.Status &^= conntrack.SeenReply }, false},
		{"not assured", func(e *conntrack.Entry) { e.Status &^= conntrack.Assured }, false},
		{"source NAT", func(e *conntrack.Entry) { e.Status |= 1 << 4 }, false},
		{"destination NAT", func(e *conntrack.Entry) { e.Status |= 1 << 5 }, false},
		{"dying", func(e *conntrack.Entry) { e.Status |= 1 << 9 }, false},
		{"an answer from elsewhere", func(e *conntrack.Entry) { e.Reply.Src = netip.MustParseAddrPort("10.5.3.2:80") }, false},
		{"a helper", func(e *conntrack.Entry) { e.Helper = true }, false},
		{"a zone", func(e *conntrack.Entry) { e.Zone = 1 }, false},
		{"a connection that ends", func(e *conntrack.Entry) { e.TCPState = 4 }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr, table, maps := newTestTracker(t)
			tt.change(&table.entry)
			maps.sees(tr, outward, deviceOfPeers, time.Second)
			if got := len(maps.flows) == 2; got != tt.want {
				t.Errorf("permitted: got %t, want %t", got, tt.want)
			}
			if len(maps.flows) > 0 && table.relaxed == 0 {
				t.Error("permitted although conntrack was not told")
			}
		})
	}
}

func TestARefusalOfConntrackPermitsNothing(t *testing.T) {
	tr, table, maps := newTestTracker(t)
	maps.sees(tr, outward, deviceOfPeers, time.Second)
	table.err = conntrack.ErrNotFound
	maps.sees(tr, outward, deviceOfPeers, 2*time.Second)
	if len(maps.flows) != 0 {
		t.Error("still permitted although the entry is gone")
	}
}

func TestAFlowIsPermittedInBothDirectionsOrInNone(t *testing.T) {
	tr, _, maps := newTestTracker(t)
	maps.room = 1
	maps.sees(tr, outward, deviceOfPeers, time.Second)
	if len(maps.flows)+tr.count() != 0 {
		t.Error("permitted in one direction")
	}
}

func TestConntrackIsToldAgainUntilNoPacketLeavesTheStack(t *testing.T) {
	tr, table, maps := newTestTracker(t)
	maps.sees(tr, outward, deviceOfPeers, time.Second)
	at := tr.due(time.Second)
	if at != time.Second+settleAfter {
		t.Fatalf("due at %v", at)
	}
	maps.ways[keyOf(outward.Reverse())] = bpfWay{Left: uint64(at - settleAfter/2)}
	if at = tr.due(at); table.relaxed != 2 || at == 0 {
		t.Errorf("told %d times, then due at %v", table.relaxed, at)
	}
	if at = tr.due(at); table.relaxed != 2 || at != 0 {
		t.Errorf("told %d times, then due at %v", table.relaxed, at)
	}
}

func TestShortTimeoutsAreRefreshedWhilePacketsAreFast(t *testing.T) {
	tr, table, maps := newTestTracker(t)
	maps.sees(tr, outward, deviceOfPeers, time.Second)
	tr.sweep(10 * time.Second)
	if table.timeout != 0 {
		t.Errorf("set to %v although nothing was fast", table.timeout)
	}
	maps.ways[keyOf(outward)] = bpfWay{Used: uint64(15 * time.Second)}
	tr.sweep(20 * time.Second)
	if want := suitable.Timeout - 5*time.Second; table.timeout != want {
		t.Errorf("set to %v, want %v", table.timeout, want)
	}
}

func TestFlowsThatAreNotUsedAreForgotten(t *testing.T) {
	tr, _, maps := newTestTracker(t)
	maps.sees(tr, outward, deviceOfPeers, time.Second)
	tr.sweep(4 * time.Minute)
	if len(maps.flows) != 2 {
		t.Error("forgotten too early")
	}
	tr.sweep(10 * time.Minute)
	if len(maps.flows) != 0 {
		t.Error("not forgotten")
	}
}

func TestWhatEndsAPermission(t *testing.T) {
	for name, end := range map[string]func(*tracker){
		"the entry ends":         func(tr *tracker) { tr.destroyed(outward) },
		"the entry of the other": func(tr *tracker) { tr.destroyed(outward.Reverse()) },
		"events are lost":        (*tracker).clear,
		"the device of the pod":  func(tr *tracker) { tr.podsChanged(map[uint32]bool{deviceOfPod: true}, nil) },
		"another pod has the address": func(tr *tracker) {
			tr.podsChanged(nil, map[netip.Addr]kernel.MAC{outward.Src.Addr(): {2}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr, _, maps := newTestTracker(t)
			maps.sees(tr, outward, deviceOfPeers, time.Second)
			maps.sees(tr, outward.Reverse(), deviceOfPod, time.Second)
			if len(maps.flows) != 2 {
				t.Fatal("not permitted")
			}
			if end(tr); len(maps.flows) != 0 {
				t.Error("still permitted")
			}
		})
	}
}

func TestAnEntryThatEndsWithoutAnEventIsNoticed(t *testing.T) {
	tr, table, maps := newTestTracker(t)
	if err := tr.start(); err != nil {
		t.Fatal(err)
	}
	maps.sees(tr, outward, deviceOfPeers, time.Second)
	table.err = conntrack.ErrNotFound
	if tr.poll(); len(maps.flows) != 0 {
		t.Error("still permitted")
	}
}

func TestAClosedFlowBeginsAnew(t *testing.T) {
	tr, _, maps := newTestTracker(t)
	maps.sees(tr, outward, deviceOfPeers, time.Second)
	tr.seen(bpfReport{Key: keyOf(outward), Device: deviceOfPeers, Closed: 1}, 2*time.Second)
	if len(maps.flows)+len(maps.ways) != 0 {
		t.Error("something of the flow is left")
	}
}

func TestAPeerThatChangesGetsAnotherPlace(t *testing.T) {
	table := newPeerTable(3)
	one, two := netip.MustParsePrefix("10.5.1.0/24"), netip.MustParsePrefix("10.5.2.0/24")
	apply := func(want map[netip.Prefix]bpfPeer) (written []bpfPeer) {
		changes, full := table.set(want)
		if full {
			t.Error("full")
		}
		for _, c := range changes {
			written = append(written, c.value)
		}
		return written
	}
	apply(map[netip.Prefix]bpfPeer{one: {Mtu: 1}, two: {Mtu: 1}})
	before, _ := table.find(netip.MustParseAddr("10.5.1.9"))
	if n := len(apply(map[netip.Prefix]bpfPeer{one: {Mtu: 1}, two: {Mtu: 1}})); n != 0 {
		t.Errorf("%d places were written without need", n)
	}
	written := apply(map[netip.Prefix]bpfPeer{one: {Mtu: 2}, two: {Mtu: 1}})
	after, ok := table.find(netip.MustParseAddr("10.5.1.9"))
	if !ok || after.place == before.place || after.generation == before.generation {
		t.Errorf("got %+v after %+v", after, before)
	}
	if len(written) != 2 || written[0].Generation != 0 || written[1].Generation != after.generation {
		t.Errorf("written: %+v", written)
	}
	if _, ok := table.find(netip.MustParseAddr("10.5.3.9")); ok {
		t.Error("a peer that nobody has set")
	}
	if _, full := table.set(map[netip.Prefix]bpfPeer{
		one: {Mtu: 2}, two: {Mtu: 1}, netip.MustParsePrefix("10.5.3.0/24"): {}, netip.MustParsePrefix("10.5.4.0/24"): {},
	}); !full {
		t.Error("there is room for more than there are places")
	}
}
