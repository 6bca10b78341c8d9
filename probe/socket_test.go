package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/nstest"
)

// link is two hosts with a cable between them.
type link struct{ here, there *nstest.NS }

// Addresses of the two ends in each family.
var (
	hereAddrs  = ipfam.Pair[netip.Addr]{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	thereAddrs = ipfam.Pair[netip.Addr]{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}
)

func newLink(t *testing.T) link {
	l := link{nstest.New(t), nstest.New(t)}
	l.here.AddVeth("eth0", "peer")
	if err := l.here.Handle.LinkSetNsFd(l.here.Link("peer"), int(l.there.Namespace)); err != nil {
		t.Fatal(err)
	}
	l.there.Up("peer")
	for f, bits := range (ipfam.Pair[int]{24, 64}).Each() {
		l.here.AddAddr("eth0", fmt.Sprintf("%s/%d", hereAddrs[f], bits))
		l.there.AddAddr("peer", fmt.Sprintf("%s/%d", thereAddrs[f], bits))
	}
	return l
}

// openIn opens a socket in a namespace, with what it receives.
func openIn(t *testing.T, ns *nstest.NS, f ipfam.Family, id uint16) (socket, chan message) {
	t.Helper()
	var s socket
	var err error
	ns.Do(func() { s, err = open(t.Context(), f, id) })
	if err != nil {
		t.Fatal(err)
	}
	received, done := make(chan message, 100), make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := s.receive()
			if err != nil {
				return
			}
			received <- m
		}
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return s, received
}

// next returns what is received next.
func next(t *testing.T, received chan message) message {
	t.Helper()
	select {
	case m := <-received:
		return m
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is received")
		return message{}
	}
}

func TestTheKernelOfThePeerAnswers(t *testing.T) {
	for f := range (ipfam.Pair[int]{}).Each() {
		t.Run(f.String(), func(t *testing.T) {
			l := newLink(t)
			s, received := openIn(t, l.here, f, 4711)
			_, heard := openIn(t, l.there, f, 42)
			for i, size := range []int{small, 777, 1500} {
				if err := s.send(thereAddrs[f], uint16(i), size); err != nil {
					t.Fatal(err)
				}
				if got, want := next(t, received), (message{from: thereAddrs[f], seq: uint16(i)}); got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
				if got, want := next(t, heard), (message{from: hereAddrs[f], request: true, seq: uint16(i)}); got != want {
					t.Errorf("the peer got %+v, want %+v", got, want)
				}
			}
		})
	}
}

func TestTheSizeOfAPacketThatDoesNotFit(t *testing.T) {
	for f := range (ipfam.Pair[int]{}).Each() {
		t.Run(f.String(), func(t *testing.T) {
			l := newLink(t)
			s, received := openIn(t, l.here, f, 4711)
			if err := s.send(thereAddrs[f], 1, 1501); !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("more than the device carries: got %v, want EMSGSIZE", err)
			}
			// The peer's end drops what is too long, as a switch does. The kernel may
			// have learned of a smaller path, and that may be over.
			if err := l.there.Handle.LinkSetMTU(l.there.Link("peer"), 1400); err != nil {
				t.Fatal(err)
			}
			for i, size := range []int{1500, 1400} {
				if err := s.send(thereAddrs[f], uint16(10+i), size); err != nil {
					t.Fatal(err)
				}
			}
			if got := next(t, received); got.seq != 11 {
				t.Errorf("got %+v, want the answer to the smaller packet", got)
			}
		})
	}
}

// TestACachedPathIsIgnored: an answer of a router is out of date once the way is
// mended.
func TestACachedPathIsIgnored(t *testing.T) {
	l := newLink(t)
	s, received := openIn(t, l.here, ipfam.V4, 4711)
	l.here.IP("route add", thereAddrs[ipfam.V4].String()+"/32 dev eth0 mtu 1300")
	if err := s.send(thereAddrs[ipfam.V4], 1, 1500); err != nil {
		t.Fatal(err)
	}
	if got := next(t, received); got.seq != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestPacketsOfOthersAreNotReceived(t *testing.T) {
	for f := range (ipfam.Pair[int]{}).Each() {
		t.Run(f.String(), func(t *testing.T) {
			l := newLink(t)
			s, received := openIn(t, l.here, f, 4711)
			other, others := openIn(t, l.here, f, 4712)
			l.here.Tool("ping", "-c 3 -i 0.01 "+thereAddrs[f].String())
			l.there.Tool("ping", "-c 3 -i 0.01 "+hereAddrs[f].String())
			if err := other.send(thereAddrs[f], 7, small); err != nil {
				t.Fatal(err)
			}
			if got := next(t, others); got.seq != 7 {
				t.Errorf("the other daemon got %+v", got)
			}
			if err := s.send(thereAddrs[f], 8, small); err != nil {
				t.Fatal(err)
			}
			if got, want := next(t, received), (message{from: thereAddrs[f], seq: 8}); got != want || len(received) > 0 {
				t.Errorf("got %+v, want %+v and nothing else", got, want)
			}
		})
	}
}

func TestProbesOfOthersCanBeDropped(t *testing.T) {
	for f := range (ipfam.Pair[int]{}).Each() {
		t.Run(f.String(), func(t *testing.T) {
			l := newLink(t)
			s, received := openIn(t, l.here, f, 4711)
			other, others := openIn(t, l.there, f, 42)
			ask := func(seq uint16) {
				t.Helper()
				if err := other.send(hereAddrs[f], seq, small); err != nil {
					t.Fatal(err)
				}
				if got := next(t, others); got.seq != seq {
					t.Fatalf("the other daemon got %+v", got)
				}
			}
			for _, hears := range []bool{false, true} {
				if err := s.hear(hears); err != nil {
					t.Fatal(err)
				}
				ask(1)
				if got := len(received) == 1; got != hears && !(hears && next(t, received).request) {
					t.Errorf("hears %t, and got a probe: %t", hears, got)
				}
				for len(received) > 0 {
					<-received
				}
				if err := s.send(thereAddrs[f], 2, small); err != nil {
					t.Fatal(err)
				}
				if got, want := next(t, received), (message{from: thereAddrs[f], seq: 2}); got != want {
					t.Errorf("hears %t: got %+v, want %+v", hears, got, want)
				}
				if got := next(t, others); !got.request {
					t.Errorf("the other daemon got %+v", got)
				}
			}
		})
	}
}

func TestWhatAPacketMayHold(t *testing.T) {
	for f, p := range protocols {
		s := &icmpSocket{protocol: p, id: 4711}
		for _, packet := range [][]byte{nil, {0}, []byte("flanneld"), make([]byte, 7), make([]byte, 8), make([]byte, 2000)} {
			if m, ok := s.parse(packet); ok {
				t.Errorf("%s: %x is %+v", ipfam.Family(f), packet, m)
			}
		}
	}
}

func TestAClosedSocketEndsItsReader(t *testing.T) {
	l := newLink(t)
	s, _ := openIn(t, l.here, ipfam.V4, 1)
	s.Close()
	if err := s.send(thereAddrs[ipfam.V4], 1, small); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
