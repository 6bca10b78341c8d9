package etcd

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"flannel/internal/testkit/etcdtest"
)

func TestStoreAddrIsThatOfTheServer(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{}), ownPrefix())
	m := newManager(t, h.options())
	if _, err := m.List(h.ctx(t)); err != nil {
		t.Fatal(err)
	}
	if a := m.StoreAddrs(); len(a) != 1 || !a[0].IsLoopback() {
		t.Errorf("got %v, want the server's", a)
	}
}

// member is a connection to a member of etcd.
type member struct {
	net.Conn
	addr string
}

func (m member) Close() error { return nil }

func (m member) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(m.addr), 2379))
}

// A record that takes the addresses of etcd must not be used because etcd
// cannot be reached at the moment.
func TestStoreAddrsAreThoseOfAllMembersAlsoWhenTheyAreGone(t *testing.T) {
	var m Manager
	for _, addr := range []string{"10.5.9.1", "10.5.9.2", "::ffff:10.5.9.1"} {
		m.connections.add(member{addr: addr})
	}
	m.connections.closeAll()
	got := m.StoreAddrs()
	slices.SortFunc(got, netip.Addr.Compare)
	want := []netip.Addr{netip.MustParseAddr("10.5.9.1"), netip.MustParseAddr("10.5.9.2")}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
