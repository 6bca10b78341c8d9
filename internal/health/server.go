package health

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"flannel/internal/logonce"
	"flannel/internal/loop"
)

// Server keeps the health pages reachable, from this host whatever others do.
type Server struct {
	// Name is what the log calls this server.
	Name string
	// Listen opens what to listen on; nil means TCP at Addr, host and port.
	Listen  func(context.Context) (net.Listener, error)
	Addr    string
	Handler http.Handler
	Log     *slog.Logger
	// Listening is called whenever the server starts to listen, with its
	// address, and Failed whenever it cannot, with the cause. Both may be nil
	// and must not block.
	Listening func(net.Addr)
	Failed    func(error)

	firstRetry time.Duration         // 0 means one second
	local      func(netip.Addr) bool // nil means on this host
}

const (
	shutdownTimeout = time.Second
	maxHeader       = 8 << 10
)

// Run serves until ctx ends. If it cannot listen, that is logged and tried again: it
// never ends the daemon.
func (s *Server) Run(ctx context.Context) error {
	failures := logonce.NewFailures(s.Log, slog.LevelError)
	backoff := loop.Backoff{First: s.firstRetry}
	for ctx.Err() == nil {
		listening, err := s.serve(ctx, failures)
		if ctx.Err() != nil {
			break
		}
		if listening {
			backoff.Reset()
		}
		failures.Fail(s.Name, err)
		if s.Failed != nil {
			s.Failed(err)
		}
		_ = backoff.Wait(ctx)
	}
	return ctx.Err()
}

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	if s.Listen != nil {
		return s.Listen(ctx)
	}
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", s.Addr)
}

// serve listens and answers until ctx ends or the listener breaks.
func (s *Server) serve(ctx context.Context, failures *logonce.Failures) (listening bool, err error) {
	listener, err := s.listen(ctx)
	if err != nil {
		return false, err
	}
	failures.OK(s.Name)
	if s.Listening != nil {
		s.Listening(listener.Addr())
	}
	limits := limiter{local: s.local, open: map[net.Conn]netip.Addr{}}
	if limits.local == nil {
		limits.local = new(host).has
	}
	server := &http.Server{
		Handler:           s.Handler,
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader - 4<<10, // net/http reads 4 KiB more
		ConnState:         limits.connState,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if server.Shutdown(end) != nil {
			server.Close()
		}
	})
	err = server.Serve(listener)
	if !stop() {
		<-done
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return true, err
}
