package probe

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"flannel/backend"
	"flannel/internal/health"
	"flannel/internal/ipfam"
)

// TestMain fails when a test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const roundTrip = 2 * time.Millisecond

// vxlan is what is probed of a peer over a vxlan device.
var vxlan = backend.Probe{Device: true, Bridge: true, MTUKey: true, MTU: 1450, Overhead: 50}

// sent is one probe that went out.
type sent struct {
	at   time.Duration
	to   netip.Addr
	size int
}

// world stands for the network, the metrics and the report of one Prober.
type world struct {
	prober *Prober
	start  time.Time
	log    bytes.Buffer

	mu sync.Mutex
	// answers decides what happens to a probe; nil answers each.
	answers  func(to netip.Addr, size int) (bool, error)
	sent     []sent
	arrived  chan message
	closed   chan struct{}
	reports  []string
	answered int
	lost     int
	verdicts map[string]int
	unable   error
	deaf     bool
	open     int // sockets, one for each family
	health   *health.Registry
}

// newWorld runs a Prober until the test ends. It is called inside a bubble.
func newWorld(t *testing.T, peers []backend.PeerStatus) *world {
	w := &world{start: time.Now(), arrived: make(chan message, 1000), verdicts: map[string]int{}, health: health.New(nil)}
	w.prober = New(Options{
		Log: slog.New(slog.NewTextHandler(&w.log, nil)), Metrics: w, Loop: w.health.AddLoop("probes"),
		Report: func(problem string) { w.reports = append(w.reports, problem) },
		open: func(context.Context, ipfam.Family, uint16) (socket, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.unable != nil {
				return nil, w.unable
			}
			if w.open++; w.open == 1 {
				w.closed = make(chan struct{})
			}
			return w, nil
		},
	})
	w.prober.SetPeers(peers)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(time.Nanosecond) // until the test has said what answers
		_ = w.prober.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return w
}

func (w *world) send(to netip.Addr, seq uint16, size int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, sent{time.Since(w.start), to, size})
	if w.answers != nil {
		if ok, err := w.answers(to, size); err != nil || !ok {
			return err
		}
	}
	time.AfterFunc(roundTrip, func() { w.arrived <- message{from: to, seq: seq} })
	return nil
}

func (w *world) receive() (message, error) {
	select {
	case m := <-w.arrived:
		return m, nil
	case <-w.closed:
		return message{}, net.ErrClosed
	}
}

func (w *world) hear(requests bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = !requests
	return nil
}

// isDeaf reports whether probes of others are dropped.
func (w *world) isDeaf() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.deaf
}

func (w *world) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open--; w.open == 0 {
		close(w.closed)
	}
	return nil
}

func (w *world) ProbeAnswered(time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answered++
}

func (w *world) ProbesLost(n int)                  { w.lost += n }
func (w *world) ProbedPeers(verdict string, n int) { w.verdicts[verdict] = n }

// setAnswers changes the network.
func (w *world) setAnswers(answers func(to netip.Addr, size int) (bool, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers = answers
}

// wait lets time pass.
func (w *world) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// verdict returns that of one peer, and why.
func (w *world) verdict(s backend.PeerStatus) backend.Probed {
	return w.prober.Probed([]backend.PeerStatus{s})[0]
}

// take returns what was sent since the last call.
func (w *world) take() []sent {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.sent
	w.sent = nil
	return out
}

// peersOf returns n peers of which the same is probed.
func peersOf(n int, pr backend.Probe) []backend.PeerStatus {
	out := make([]backend.PeerStatus, n)
	for i := range out {
		out[i] = peerAt(i, pr)
	}
	return out
}

func peerAt(i int, pr backend.Probe) backend.PeerStatus {
	return backend.PeerStatus{
		Name: fmt.Sprintf("node%d", i), Family: ipfam.V4, How: backend.Tunnel, Probe: pr,
		Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64 + byte(i>>8), byte(i), 0}), 24),
		Via:    netip.AddrFrom4([4]byte{192, 0, byte(2 + i>>8), byte(i)}),
	}
}

// deviceOf and bridgeOf return the addresses of a peer.
func deviceOf(s backend.PeerStatus) netip.Addr { return s.Subnet.Addr() }
func bridgeOf(s backend.PeerStatus) netip.Addr { return s.Subnet.Addr().Next() }

// only answers at these addresses.
func only(addrs ...netip.Addr) func(netip.Addr, int) (bool, error) {
	set := map[netip.Addr]bool{}
	for _, a := range addrs {
		set[a] = true
	}
	return func(to netip.Addr, _ int) (bool, error) { return set[to], nil }
}

// nothing answers.
func nothing(netip.Addr, int) (bool, error) { return false, nil }

// upTo answers packets of at most this size.
func upTo(largest int) func(netip.Addr, int) (bool, error) {
	return func(_ netip.Addr, size int) (bool, error) { return size <= largest, nil }
}
