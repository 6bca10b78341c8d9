package udp

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"flannel/backend/backendtest"
	"flannel/internal/testkit/nstest"
)

// TestADriverWithoutChecksumOffloadLosesNothing has the kernel refuse all
// messages of a flush, as it does for such a driver: each packet of each
// message is sent by itself.
func TestADriverWithoutChecksumOffloadLosesNothing(t *testing.T) {
	ns := nstest.New(t)
	ns.IP("link set lo up")
	host := netip.MustParseAddr("127.0.0.1")
	var sink, from *socket
	var err error
	ns.Do(func() {
		var problem error
		sink, problem = listen(host, 0, "", all)
		from, err = listen(host, 0, "", all)
		err = errors.Join(problem, err)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.conn.Close()
	defer from.conn.Close()
	port := sink.conn.LocalAddr().(*net.UDPAddr).Port
	to := &peer{path: &path{addr: host}, to: udpAddr(host, port, 0)}
	o := &outward{udp: backendtest.New(t, Type, `{}`, backendtest.Env(true, false)).(*udp), session: &session{}}
	s := newSender(from, nil)
	s.socket.gso = true
	for _, tos := range []byte{0, 0xb8} {
		for range 2 {
			p := make([]byte, 20)
			p[0], p[1], p[3] = 0x45, tos, 20
			s.add(to, tos, p, nil)
		}
	}
	if s.count != 2 {
		t.Fatalf("%d messages, want 2", s.count)
	}
	for i := range s.count {
		o.refused(s, &s.messages[i], unix.EIO)
	}
	if n := o.udp.counters.unsent.Load(); n != 0 || s.socket.gso {
		t.Fatalf("%d packets not sent; many at once still: %t", n, s.socket.gso)
	}
	b := make([]byte, 100)
	for range 4 {
		if n, err := sink.conn.Read(b); err != nil || n != 20 {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
}
