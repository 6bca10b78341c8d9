package health

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Limits of connections from other hosts. Clients on this host have none, so
// that nobody can keep the kubelet from its probes.
const (
	maxRemote           = 64
	maxRemotePerAddress = 8
)

// clientOf returns the address of a client, the zero value if it has none.
func clientOf(remote string) netip.Addr {
	client, _ := netip.ParseAddrPort(remote)
	return client.Addr().Unmap()
}

func isUnix(a net.Addr) bool { return a != nil && a.Network() == "unix" }

// host tells clients on this host from others.
type host struct {
	mu    sync.Mutex
	addrs map[netip.Addr]bool
	read  time.Time
}

// has reports whether a client is on this host. A link-local address may be one
// of this host and of a neighbor at once, and so proves nothing.
func (h *host) has(client netip.Addr) bool {
	if client.IsLoopback() {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.read) > time.Second {
		h.addrs, h.read = hostAddrs(), time.Now()
	}
	return h.addrs[client]
}

func hostAddrs() map[netip.Addr]bool {
	list, _ := net.InterfaceAddrs() // without a list every client is remote
	addrs := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			addrs[p.Addr().Unmap()] = true
		}
	}
	return addrs
}

// limiter closes connections from other hosts that are too many.
type limiter struct {
	local func(client netip.Addr) bool

	mu   sync.Mutex
	open map[net.Conn]netip.Addr // from other hosts
}

// connState is the hook of http.Server.
func (l *limiter) connState(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		client := clientOf(c.RemoteAddr().String())
		if !isUnix(c.LocalAddr()) && !l.local(client) && !l.admit(c, client) {
			c.Close()
		}
	case http.StateClosed, http.StateHijacked:
		l.mu.Lock()
		delete(l.open, c)
		l.mu.Unlock()
	}
}

func (l *limiter) admit(c net.Conn, client netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	same := 0
	for _, other := range l.open {
		if other == client {
			same++
		}
	}
	if len(l.open) >= maxRemote || same >= maxRemotePerAddress {
		return false
	}
	l.open[c] = client
	return true
}
