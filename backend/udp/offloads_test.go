package udp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"flannel/backend"
	"flannel/backend/backendtest"
	"flannel/internal/ipfam"
	"flannel/internal/testkit/nstest"
	"flannel/subnet"
)

// patience bounds every wait: far more than anything takes.
const patience = 20 * time.Second

// end is one of two nodes on a link, in a namespace of its own.
type end struct {
	*nstest.NS
	n      int
	logged string // what was logged at the start
}

// newEnds returns two nodes whose kernels hold what is planned.
func newEnds(t testing.TB) [2]*end {
	ends := [2]*end{{NS: nstest.New(t), n: 1}, {NS: nstest.New(t), n: 2}}
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: "eth0"})
	veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(ends[1].Namespace)
	if err := ends[0].Handle.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	for _, e := range ends {
		e.AddAddr("eth0", fmt.Sprintf("192.0.2.%d/24", e.n))
		e.AddAddr("eth0", fmt.Sprintf("2001:db8::%d/64", e.n))
		e.Up("eth0")
		e.IP("tuntap add dev flannel0 mode tun vnet_hdr")
		e.IP("link set flannel0 mtu 1452")
		for f, s := range ipfam.Prefixes(node(e.n).Subnet) {
			e.AddAddr("flannel0", netip.PrefixFrom(s.Addr(), s.Addr().BitLen()).String())
			e.Up("flannel0")
			e.IP("route add", backendtest.Env(true, true).Network[f].String(), "dev flannel0")
		}
	}
	return ends
}

// move moves packets until the test ends, with no more of the kernel's help
// than it may.
func (e *end) move(t testing.TB, may offloads) {
	t.Helper()
	e.moveTo(t, may, node(3-e.n))
}

// moveTo does so with another peer than the other end.
func (e *end) moveTo(t testing.TB, may offloads, peer subnet.Lease) *udp {
	t.Helper()
	env := backendtest.Env(true, true)
	var log bytes.Buffer
	env.Log = slog.New(slog.NewTextHandler(&log, nil))
	b := backendtest.New(t, Type, `{}`, env).(*udp)
	b.may = may
	view := backend.Host{Uplink: backend.Uplink{Name: "eth0", Index: e.Index("eth0"), MTU: 1500}}
	view.Uplink.Addr = node(e.n).Attrs.PublicIP
	view.Uplink.Public = view.Uplink.Addr
	if err := b.Use(node(e.n), []subnet.Lease{peer}, view); !errors.Is(err, errStarting) {
		t.Fatal(err)
	}
	var s *session
	var err error
	e.Do(func() { s, err = b.open(*b.wanted()) })
	if err != nil {
		t.Fatal(err)
	}
	e.logged = log.String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	<-b.kick // what Run would have taken
	go func() { done <- b.session(ctx, s) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return b
}

// addr is the node's address on the overlay.
func (e *end) addr(f ipfam.Family) netip.Addr { return node(e.n).Subnet[f].Addr() }

// stream opens a TCP connection from one node to the other.
func stream(t testing.TB, from, to *end, f ipfam.Family) (client, server net.Conn) {
	t.Helper()
	var listener net.Listener
	var err error
	to.Do(func() { listener, err = net.Listen("tcp", netip.AddrPortFrom(to.addr(f), 0).String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	from.Do(func() { client, err = net.DialTimeout("tcp", listener.Addr().String(), patience) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

// sockets opens two for datagrams from one node to the other.
func sockets(t testing.TB, from, to *end, f ipfam.Family) (out net.Conn, in net.PacketConn) {
	t.Helper()
	var err error
	to.Do(func() { in, err = net.ListenPacket("udp", netip.AddrPortFrom(to.addr(f), 0).String()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	from.Do(func() { out, err = net.Dial("udp", in.LocalAddr().String()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	return out, in
}

// transfer sends bytes over TCP and compares what arrives.
func transfer(t *testing.T, from, to *end, f ipfam.Family) {
	t.Helper()
	client, server := stream(t, from, to, f)
	if err := server.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 2<<20)
	for i := range sent {
		sent[i] = byte(i * i >> 7)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := client.Write(sent)
		failed <- errors.Join(err, client.Close())
	}()
	got, err := io.ReadAll(server)
	if err := errors.Join(err, <-failed); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%s: %d bytes arrived, and not those that were sent", f, len(got))
	}
}

// datagrams sends some, which arrive in their order.
func datagrams(t *testing.T, from, to *end, f ipfam.Family) {
	t.Helper()
	out, in := sockets(t, from, to, f)
	if err := in.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2000)
	for i := range 50 {
		if _, err := out.Write(bytes.Repeat([]byte{byte(i)}, 1200)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		n, _, err := in.ReadFrom(b)
		if err != nil || n != 1200 || b[0] != byte(i) || b[n-1] != byte(i) {
			t.Fatalf("%s: datagram %d: %d bytes of %d, %v", f, i, n, b[0], err)
		}
	}
}

// TestOlderKernels lets nodes whose kernels help less talk to one whose kernel
// does all.
func TestOlderKernels(t *testing.T) {
	const tcp, udp = "TUN segmentation of TCP", "TUN segmentation of UDP (Linux 6.2)"
	tests := map[string]struct {
		may     offloads
		lacking []string
	}{
		"helps with all":     {all, nil},
		"before 6.2":         {offloads{segments: true, gso: true, gro: true}, []string{udp}},
		"before 5.0":         {offloads{segments: true, gso: true}, []string{udp, "ipv4 UDP GRO (Linux 5.0)", "ipv6 UDP GRO (Linux 5.0)"}},
		"before 4.18":        {offloads{segments: true}, []string{udp, "ipv4 UDP GSO (Linux 4.18)", "ipv6 UDP GSO (Linux 4.18)"}},
		"helps with nothing": {offloads{}, []string{tcp, udp, "ipv4 UDP GSO (Linux 4.18)", "ipv6 UDP GRO (Linux 5.0)"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ends := newEnds(t)
			ends[0].move(t, tt.may)
			ends[1].move(t, all)
			logged := ends[0].logged
			if n := strings.Count(logged, "the kernel lacks offloads"); (n == 1) != (len(tt.lacking) > 0) {
				t.Errorf("logged %d times: %s", n, logged)
			}
			for _, what := range tt.lacking {
				if !strings.Contains(logged, what) {
					t.Errorf("%q is not logged: %s", what, logged)
				}
			}
			for _, f := range ipfam.All() {
				for _, way := range [][2]*end{{ends[0], ends[1]}, {ends[1], ends[0]}} {
					transfer(t, way[0], way[1], f)
					datagrams(t, way[0], way[1], f)
				}
			}
		})
	}
}
