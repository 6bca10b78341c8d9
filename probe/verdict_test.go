package probe

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"flannel/backend"
	"flannel/internal/ipfam"
)

func TestVerdicts(t *testing.T) {
	onlyBridge := backend.Probe{Bridge: true, MTU: 1500}
	onlyDevice := backend.Probe{Device: true, MTU: 1472, Overhead: 28}
	for _, c := range []struct {
		name  string
		probe backend.Probe
		// The network at first, and what it becomes; nil changes nothing.
		first, then func(netip.Addr, int) (bool, error)
		want        backend.Verdict
		why         string
		largest     int
	}{
		{name: "everything is answered", probe: vxlan, want: backend.Fine},
		{name: "nothing is answered any more", probe: vxlan, then: nothing, want: backend.Broken, why: "no answer: "},
		{name: "nothing was ever answered", probe: vxlan, first: nothing, want: backend.Broken, why: "no answer: "},
		{name: "another peer answers, this one never did", probe: vxlan, first: only(deviceOf(peerAt(1, vxlan))), want: backend.Silent, why: "it has never answered: "},
		{name: "the bridge answers, the device does not", probe: vxlan, first: only(bridgeOf(peerAt(0, vxlan)), deviceOf(peerAt(1, vxlan))), want: backend.Fine},
		{name: "the bridge is gone, and another peer answers", probe: vxlan, first: only(bridgeOf(peerAt(0, vxlan)), deviceOf(peerAt(1, vxlan))),
			then: only(deviceOf(peerAt(1, vxlan))), want: backend.Broken},
		{name: "the device answers where the bridge did", probe: vxlan, first: only(bridgeOf(peerAt(0, vxlan))), then: only(deviceOf(peerAt(0, vxlan))), want: backend.Fine},
		{name: "host-gw without a bridge", probe: onlyBridge, first: nothing, want: backend.Silent, why: "it has no pods yet"},
		{name: "host-gw that has answered", probe: onlyBridge, then: nothing, want: backend.Broken},
		{name: "large packets are lost", probe: vxlan, first: upTo(1357), want: backend.Broken, why: "the largest that arrive have 1357 bytes: set Backend.MTU to 1407", largest: 1357},
		{name: "large packets are lost later", probe: onlyDevice, then: upTo(576), want: backend.Broken, why: "set the MTU of the nodes' uplinks to 604", largest: 576},
		{name: "large packets arrive again", probe: vxlan, first: upTo(1357), then: upTo(1450), want: backend.Fine},
		{name: "large packets do not leave this host", probe: vxlan, first: func(_ netip.Addr, size int) (bool, error) {
			if size > 1400 {
				return false, unix.EMSGSIZE
			}
			return true, nil
		}, want: backend.Fine, why: "packets of 1450 bytes do not leave this host (message too long)"},
		{name: "nothing leaves this host", probe: vxlan, first: func(netip.Addr, int) (bool, error) { return false, unix.EPERM },
			want: backend.Broken, why: "packets do not leave this host: operation not permitted"},
		{name: "packets leave this host again, and are lost", probe: vxlan, first: func(netip.Addr, int) (bool, error) { return false, unix.EPERM },
			then: nothing, want: backend.Broken, why: "no answer: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				peers := peersOf(2, c.probe)
				w := newWorld(t, peers)
				w.setAnswers(c.first)
				w.wait(2 * time.Minute)
				if c.then != nil {
					w.setAnswers(c.then)
					w.wait(2 * time.Minute)
				}
				got := w.verdict(peers[0])
				if got.Verdict != c.want || !strings.Contains(got.Why, c.why) || got.Largest != c.largest {
					t.Errorf("got %+v, want %s because of %q, the largest %d", got, c.want, c.why, c.largest)
				}
				if (got.Why == "") != (got.Cause == "") {
					t.Errorf("the cause %q and the text %q do not agree", got.Cause, got.Why)
				}
				if (c.why == "") && c.want == backend.Fine && got.Why != "" {
					t.Errorf("a fine peer has %q", got.Why)
				}
				if count := w.verdicts[string(c.want)]; count == 0 {
					t.Errorf("the metrics have %v", w.verdicts)
				}
			})
		})
	}
}

func TestProbesOfAPeerThatDoesNotAnswerShowTheWayBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := peersOf(2, vxlan)
		w := newWorld(t, peers)
		w.wait(10 * time.Second)
		w.arrived <- message{from: deviceOf(peers[0]), request: true} // before anything is lost
		w.setAnswers(only(deviceOf(peers[1])))
		w.wait(10 * time.Second)
		if got := w.verdict(peers[0]); got.Verdict != backend.Broken || got.WayBack {
			t.Errorf("got %+v, want it broken both ways", got)
		}
		w.arrived <- message{from: deviceOf(peers[0]), request: true}
		w.wait(time.Second)
		if got := w.verdict(peers[0]); !got.WayBack || !strings.Contains(got.Why, "the way there is cut") {
			t.Errorf("got %+v, want that the way back works", got)
		}
		if got := w.verdict(peers[1]); got.WayBack {
			t.Errorf("got %+v of another peer", got)
		}
	})
}

func TestAnAnswerThatNobodyWaitsForCountsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := peersOf(2, vxlan)
		w := newWorld(t, peers)
		w.setAnswers(nothing)
		for seq := range uint16(100) {
			w.arrived <- message{from: deviceOf(peers[1]), seq: 1000 + seq}
			w.arrived <- message{from: peers[0].Via, seq: seq}
		}
		w.wait(time.Minute)
		if w.answered > 0 || w.verdict(peers[0]).Answered != nil {
			t.Errorf("%d answers, got %+v", w.answered, w.verdict(peers[0]))
		}
	})
}

// TestASubnetOfOneAddress: a record may name one.
func TestASubnetOfOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := append(peersOf(1, vxlan), peerAt(1, backend.Probe{Bridge: true, MTU: 1450}))
		for i := range peers {
			peers[i].Subnet = netip.PrefixFrom(peers[i].Subnet.Addr(), 32)
		}
		w := newWorld(t, peers)
		w.setAnswers(nothing)
		w.wait(time.Minute)
		for _, s := range w.take() {
			if s.to != deviceOf(peers[0]) {
				t.Fatalf("%s is asked", s.to)
			}
		}
	})
}

// TestAFloodOfProbesIsIgnored: what a peer sends costs this node little.
func TestAFloodOfProbesIsIgnored(t *testing.T) {
	c := newCore()
	peers := peersOf(2, vxlan)
	c.setPeers(peers)
	for range 10 * maxHeard {
		c.heard(netip.MustParseAddr("203.0.113.1"), time.Second)
	}
	if c.heard(deviceOf(peers[0]), time.Second); c.peers[0].heard > 0 {
		t.Error("a flood is searched for")
	}
	if c.heard(deviceOf(peers[0]), 2*time.Second); c.peers[0].heard == 0 {
		t.Error("a probe after the flood is not noted")
	}
}

// TestAFloodIsDroppedByTheKernel until a second is over.
func TestAFloodIsDroppedByTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := peersOf(2, vxlan)
		w := newWorld(t, peers)
		w.wait(10 * time.Second)
		for range maxHeard {
			w.arrived <- message{from: netip.MustParseAddr("203.0.113.1"), request: true}
		}
		synctest.Wait()
		if !w.isDeaf() {
			t.Error("a flood is received")
		}
		w.wait(2 * time.Second)
		if w.isDeaf() {
			t.Error("probes of others are dropped long after a flood")
		}
		if got := w.verdict(peers[0]); got.Verdict != backend.Fine {
			t.Errorf("got %+v", got)
		}
	})
}

// TestAFamilyThatIsGoneIsNotListenedTo: its socket was deaf, and is no longer open.
func TestAFamilyThatIsGoneIsNotListenedTo(t *testing.T) {
	p := New(Options{})
	p.deaf[ipfam.V6] = true
	if err := p.listen(&ipfam.Pair[socket]{}); err != nil {
		t.Error(err)
	}
}

func TestWhatIsKnownOfAPeerOutlivesAPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := peersOf(20, vxlan)
		w := newWorld(t, peers)
		w.wait(time.Minute)
		w.setAnswers(only(deviceOf(peers[3])))
		// The peers change while probes are under way.
		for i := range 40 {
			at := i % 10
			list := append(append([]backend.PeerStatus(nil), peers[:at]...), peers[min(at+i%3, 10):]...)
			w.prober.SetPeers(list)
			w.wait(3*time.Second + 100*time.Millisecond)
		}
		w.prober.SetPeers(append([]backend.PeerStatus{peerAt(99, vxlan)}, peers...))
		w.wait(3 * time.Minute)
		if got := w.verdict(peers[19]); got.Verdict != backend.Broken || got.Answered == nil {
			t.Errorf("got %+v of a peer that stayed", got)
		}
		if got := w.verdict(peers[3]); got.Verdict != backend.Fine {
			t.Errorf("got %+v of a peer that left and came back", got)
		}
		if got := w.verdict(peerAt(99, vxlan)); got.Verdict != backend.Silent {
			t.Errorf("got %+v of a new peer", got)
		}
	})
}
