package health

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// serve runs a server until the test ends and returns its address.
func serve(t *testing.T, local func(netip.Addr) bool) string {
	t.Helper()
	listening := make(chan net.Addr, 1)
	s := &Server{
		Addr: "127.0.0.1:0", Handler: Handler(New(nil), Pages{}), Log: slog.New(slog.DiscardHandler),
		Listening: func(a net.Addr) { listening <- a }, local: local,
	}
	start(t, s)
	return (<-listening).String()
}

// start runs a server until stop is called or the test ends. stop returns what Run
// has returned.
func start(t *testing.T, s *Server) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

// connectFrom opens a connection from an address and reports whether the server
// answers on it.
func connectFrom(t *testing.T, from net.IP, addr string) bool {
	t.Helper()
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}).Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	// The connection stays open after the answer.
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		return false
	}
	_, err = conn.Read(make([]byte, 1))
	return err == nil
}

func TestConnectionsFromOtherHostsAreLimited(t *testing.T) {
	addr := serve(t, func(netip.Addr) bool { return false })
	for i := range byte(maxRemote / maxRemotePerAddress) {
		for range maxRemotePerAddress {
			if !connectFrom(t, net.IPv4(127, 0, 1, i), addr) {
				t.Fatal("a connection within the limits is refused")
			}
		}
		if i == 0 && connectFrom(t, net.IPv4(127, 0, 1, 0), addr) {
			t.Error("one address got a connection too many")
		}
	}
	if connectFrom(t, net.IPv4(127, 0, 2, 0), addr) {
		t.Error("other hosts together got a connection too many")
	}
}

func TestConnectionsFromThisHostAreNotLimited(t *testing.T) {
	addr := serve(t, nil)
	for range maxRemote + 1 {
		if !connectFrom(t, net.IPv4(127, 0, 0, 1), addr) {
			t.Fatal("a connection is refused")
		}
	}
}

func TestHeadersAreLimited(t *testing.T) {
	addr := serve(t, nil)
	for size, want := range map[int]int{maxHeader - 1<<10: http.StatusOK, maxHeader + 1: http.StatusRequestHeaderFieldsTooLarge} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Long", strings.Repeat("x", size))
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("a header of %d bytes: got %d, want %d", size, resp.StatusCode, want)
		}
	}
}

func TestServerWaitsForABusyPortAndEndsWithItsContext(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	failed, listening := make(chan error, 100), make(chan net.Addr, 1)
	s := &Server{
		Addr:       busy.Addr().String(),
		Handler:    Handler(New(nil), Pages{}),
		Log:        slog.New(slog.DiscardHandler),
		Listening:  func(a net.Addr) { listening <- a },
		Failed:     func(err error) { failed <- err },
		firstRetry: time.Millisecond,
	}
	stop := start(t, s)

	if err := <-failed; err == nil {
		t.Error("a busy port is not reported")
	}
	busy.Close()
	addr := <-listening
	resp, err := http.Get("http://" + addr.String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(body) != "flanneld is running" {
		t.Errorf("got %q, %v", body, err)
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context canceled", err)
	}
	if conn, err := net.Dial("tcp", addr.String()); err == nil {
		conn.Close()
		t.Error("the port is still open")
	}
}

// Whoever may connect to the socket may know everything.
func TestAClientOnASocketIsLocal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	r := New(nil)
	r.Require("lease", "waiting for a subnet")
	status := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "peers") })
	listening := make(chan net.Addr, 1)
	s := &Server{
		Listen: func(ctx context.Context) (net.Listener, error) {
			var config net.ListenConfig
			return config.Listen(ctx, "unix", path)
		},
		Handler: Handler(r, Pages{Status: status}), Log: slog.New(slog.DiscardHandler),
		Listening: func(a net.Addr) { listening <- a }, local: func(netip.Addr) bool { return false },
	}
	start(t, s)
	<-listening
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	for page, want := range map[string]string{"/status": "peers", "/readyz": "flanneld is not ready yet\nlease: waiting for a subnet"} {
		for range 2 * maxRemotePerAddress {
			resp, err := client.Get("http://localhost" + page)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(body) != want {
				t.Fatalf("%s: got %q, %v", page, body, err)
			}
		}
	}
}
