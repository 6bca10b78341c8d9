package health

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"
)

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
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()

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
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context canceled", err)
	}
	if conn, err := net.Dial("tcp", addr.String()); err == nil {
		conn.Close()
		t.Error("the port is still open")
	}
}
