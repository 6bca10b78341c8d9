package main

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flannel/internal/health"
	"flannel/internal/loop"
	"flannel/internal/sdnotify"
)

// systemd is the socket that systemd would listen on.
type systemd struct {
	t    *testing.T
	conn *net.UnixConn
}

func newSystemd(t *testing.T) (*systemd, string) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &systemd{t, conn}, path
}

// hears waits for a message that starts like this.
func (s *systemd) hears(want string) {
	s.t.Helper()
	s.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		buf := make([]byte, 4096)
		n, err := s.conn.Read(buf)
		if err != nil {
			s.t.Fatalf("waiting for %q: %v", want, err)
		}
		if strings.HasPrefix(string(buf[:n]), want) {
			return
		}
	}
}

func TestSystemdIsNotifiedOfTheNodesState(t *testing.T) {
	s, path := newSystemd(t)
	changed := loop.NewSignal()
	registry := health.New(changed.Send)
	lease := registry.Require("lease", "waiting for a subnet")
	n := &notifier{
		log: slog.New(slog.DiscardHandler), health: registry, changed: changed,
		sd: sdnotify.New(func(string) string { return path }),
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.run(ctx) }()
	s.hears("EXTEND_TIMEOUT_USEC=30000000")
	s.hears("STATUS=waiting: lease: waiting for a subnet")
	lease.OK()
	s.hears("READY=1")
	s.hears("STATUS=ready")
	cancel()
	s.hears("STOPPING=1")
	<-done
}
