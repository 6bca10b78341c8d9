package etcd

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"google.golang.org/grpc/credentials"
)

// connections knows the open connections, so that they can be ended when the
// address that they come from is gone: the other side would never answer, and
// that takes long to notice.
type connections struct {
	mu   sync.Mutex
	open map[*connection]struct{}
	// addrs are those that connections went to, closed ones included.
	addrs map[netip.Addr]bool
}

// connection leaves the set when it is closed.
type connection struct {
	net.Conn
	set *connections
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.set.mu.Lock()
	delete(c.set.open, c)
	c.set.mu.Unlock()
	return c.Conn.Close()
}

func (s *connections) add(conn net.Conn) net.Conn {
	c := &connection{conn, s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open, s.addrs = map[*connection]struct{}{}, map[netip.Addr]bool{}
	}
	s.open[c] = struct{}{}
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		s.addrs[a.AddrPort().Addr().Unmap()] = true
	}
	return c
}

// closeAll ends every connection. The client opens new ones by itself.
func (s *connections) closeAll() {
	s.mu.Lock()
	var all []*connection
	for c := range s.open {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		c.Close() // whoever uses it sees the error
	}
}

// StoreAddrs implements subnet.Manager.
func (m *Manager) StoreAddrs() []netip.Addr {
	m.connections.mu.Lock()
	defer m.connections.mu.Unlock()
	return slices.Collect(maps.Keys(m.connections.addrs))
}

// tracked are credentials that note every connection they secure.
type tracked struct {
	credentials.TransportCredentials
	set *connections
}

// ClientHandshake implements credentials.TransportCredentials.
func (t tracked) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := t.TransportCredentials.ClientHandshake(ctx, authority, conn)
	if err != nil {
		return nil, nil, err
	}
	return t.set.add(secured), info, nil
}

// Clone implements credentials.TransportCredentials.
func (t tracked) Clone() credentials.TransportCredentials {
	return tracked{t.TransportCredentials.Clone(), t.set}
}

// Reconnect ends all connections to the store and opens new ones.
func (m *Manager) Reconnect() { m.connections.closeAll() }
