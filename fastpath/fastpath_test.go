package fastpath

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"flannel/internal/testkit/eventually"
)

// run starts the fast path of a host; it ends with the test, or with stop.
func (h *host) run(t *testing.T, o Options) (stop func()) {
	t.Helper()
	o.Bridge, o.Namespace = "cni0", int(h.Namespace)
	o.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	h.fast = New(o)
	h.fast.SetPeers(h.peers)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.fast.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			<-done
		}
	}
	t.Cleanup(stop)
	return stop
}

// fastPackets is how many packets were carried in one direction.
func (h *host) fastPackets(t *testing.T, direction string) uint64 {
	t.Helper()
	counts, err := h.fast.Counts()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if c.Direction == direction && c.Reason == "fast" {
			return c.Packets
		}
	}
	return 0
}

// connect opens a connection from the pod of one host to that of the other.
func connect(t *testing.T, from, to *host) (client, server *net.TCPConn) {
	t.Helper()
	l := to.listen(t)
	client = from.dial(t, l.Addr())
	server, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return client, server
}

// echo sends a message there and back.
func echo(t *testing.T, client, server *net.TCPConn) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	_ = client.SetDeadline(deadline)
	_ = server.SetDeadline(deadline)
	message := make([]byte, 100)
	for _, way := range [][2]*net.TCPConn{{client, server}, {server, client}} {
		if _, err := way[0].Write(message); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(way[1], message); err != nil {
			t.Fatal(err)
		}
	}
}

// untilFast exchanges messages until both hosts carry them in both directions.
func untilFast(t *testing.T, hosts [2]*host, client, server *net.TCPConn) {
	t.Helper()
	var before [4]uint64
	read := func() (n [4]uint64) {
		for i, h := range hosts {
			n[2*i], n[2*i+1] = h.fastPackets(t, "out"), h.fastPackets(t, "in")
		}
		return n
	}
	before = read()
	eventually.True(t, "all packets of the connection are fast", func() bool {
		echo(t, client, server)
		for i, n := range read() {
			if n == before[i] {
				return false
			}
		}
		return true
	})
}

func dump(t *testing.T, hosts [2]*host) {
	for _, h := range hosts {
		counts, _ := h.fast.Counts()
		for _, c := range counts {
			if c.Packets > 0 {
				t.Log(h.n, c)
			}
		}
		t.Log("flows", h.fast.Flows(), "invalid", h.invalid(t))
	}
}

func TestAStreamIsFast(t *testing.T) {
	hosts := twoHosts(t, `{}`)
	for _, h := range hosts {
		h.run(t, Options{})
	}
	client, server := connect(t, hosts[0], hosts[1])
	defer dump(t, hosts)
	untilFast(t, hosts, client, server)
	_ = client.Close()
	if _, err := io.Copy(io.Discard, server); err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
}
