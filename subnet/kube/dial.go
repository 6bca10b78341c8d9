package kube

import (
	"errors"
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A path that swallows packets must be noticed within seconds, also while
// nothing is asked. Over a connection on which nothing came for pingAfter an
// HTTP/2 ping is sent, and the kernel ends a connection on which data have been
// unacknowledged for deadAfter (TCP_USER_TIMEOUT, tcp(7)). Keepalive probes
// would not do: what the other end sends again and again resets their timers.
const (
	pingAfter = 5 * time.Second
	deadAfter = 8 * time.Second
)

func newDialer() *net.Dialer {
	return &net.Dialer{Timeout: dialTimeout, Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
		})
		return errors.Join(err, failed)
	}}
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

// isTimeout reports whether an answer has not come in time.
func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// deviceOf returns the device of this host that has an address, or nothing. The
// kernel lists all addresses for each device that is asked about, so it is asked
// only if one of them has the address.
func deviceOf(addr net.IP) string {
	is := func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(addr)
	}
	all, err := net.InterfaceAddrs()
	if err != nil || !slices.ContainsFunc(all, is) {
		return ""
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for i := range interfaces {
		addrs, _ := interfaces[i].Addrs() // a device that is gone has none
		if slices.ContainsFunc(addrs, is) {
			return interfaces[i].Name
		}
	}
	return ""
}
