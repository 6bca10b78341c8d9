package ping_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/lab/ping"
	"flannel/lab/sandbox"
)

func TestMain(m *testing.M) {
	code, err := sandbox.Run(m.Run)
	if errors.Is(err, sandbox.ErrUnavailable) {
		code = m.Run()
	}
	os.Exit(code)
}

var loopback = ipfam.Pair[string]{"127.0.0.1", "::1"}

func open(t *testing.T, f ipfam.Family) *ping.Conn {
	t.Helper()
	if !sandbox.Active() {
		t.Skip("no rights to make namespaces")
	}
	c, err := ping.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestOnceGetsAReply(t *testing.T) {
	for f, addr := range loopback.Each() {
		// Another socket sees the same replies and must not take them.
		other := open(t, f)
		s := ping.Start(other, netip.MustParseAddr(addr), time.Millisecond)
		if _, err := ping.Once(t.Context(), open(t, f), netip.MustParseAddr(addr)); err != nil {
			t.Errorf("%s: %v", f, err)
		}
		if got := s.Stop(); got.Lost != 0 || got.Sent != got.Received || got.Sent == 0 {
			t.Errorf("%s: %s", f, got)
		}
	}
}

func TestOnceEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ping.Once(ctx, open(t, ipfam.V4), netip.MustParseAddr("127.0.0.1")); err == nil {
		t.Error("a reply although the context has ended")
	}
}

func TestWhatCannotBeSentIsLost(t *testing.T) {
	// The sandbox has no route but to itself.
	s := ping.Start(open(t, ipfam.V4), netip.MustParseAddr("192.0.2.1"), time.Millisecond)
	got := s.Stop()
	if got.Sent == 0 || got.Lost != got.Sent || got.SendErr == nil {
		t.Errorf("%s, %v", got, got.SendErr)
	}
}
