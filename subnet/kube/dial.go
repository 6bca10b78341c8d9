package kube

import (
	"context"
	"errors"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A path that drops packets must be noticed within seconds, also while no
// request is made. Over a connection on which nothing came for pingAfter an
// HTTP/2 ping is sent, and the kernel ends a connection on which data have been
// unacknowledged for deadAfter (TCP_USER_TIMEOUT, tcp(7)). Keepalive probes
// would not do: what the other end retransmits resets their timers.
const (
	pingAfter = 5 * time.Second
	deadAfter = 8 * time.Second
)

// dial makes a connection to the API server.
func (c *client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, Control: setUserTimeout}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if to, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		a := to.AddrPort().Addr().Unmap()
		c.remote.Store(&a)
	}
	return newPacedConn(conn, c.lost), nil
}

func setUserTimeout(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
	})
	return errors.Join(err, failed)
}

// pinging makes a transport ping the server over idle connections.
func pinging(t http.RoundTripper) http.RoundTripper {
	if plain, ok := t.(*http.Transport); ok {
		plain.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter}
	}
	return t
}

// isDeadPath reports whether a connection has ended because nothing came back
// over it.
func isDeadPath(err error) bool {
	return errors.Is(err, unix.ETIMEDOUT) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH)
}
