package fastpath

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"testing"

	"flannel/backend"
	"flannel/backend/backendtest"
	"flannel/backend/vxlan"
	"flannel/internal/ipfam"
	"flannel/internal/testkit/nstest"
	"flannel/kernel"
	"flannel/subnet"
)

// host is a node with a bridge and one pod.
type host struct {
	*nstest.NS
	n      int
	pod    *nstest.NS
	kernel *kernel.Reconciler
	state  kernel.State
	peers  []backend.PeerStatus
	fast   *FastPath
}

// podAddrs are the addresses of the bridge and of the pod with their length.
func (h *host) podAddrs(last int) []string {
	return []string{fmt.Sprintf("10.5.%d.%d/24", h.n, last), fmt.Sprintf("fc00:0:0:%d::%d/64", h.n, last)}
}

// podAddr is that of the pod in one family.
func (h *host) podAddr(f ipfam.Family) netip.Addr {
	return netip.MustParsePrefix(h.podAddrs(2)[f]).Addr()
}

// wiring is how the hosts are connected.
type wiring struct {
	backend backend.Type
	object  string
}

var overVXLAN = wiring{vxlan.Type, `{}`}

// twoHosts makes two nodes on one link, with their pods, conntrack, and rules that
// count and drop what conntrack finds invalid.
func twoHosts(t testing.TB, w wiring) [2]*host {
	t.Helper()
	var hosts [2]*host
	for i := range hosts {
		hosts[i] = &host{NS: nstest.New(t), n: i + 1, pod: nstest.New(t)}
	}
	hosts[0].AddVeth("eth0", "peer0")
	move(t, hosts[0].NS, "peer0", hosts[1].NS, "eth0")
	leases := make([]subnet.Lease, len(hosts))
	backends := make([]backend.Backend, len(hosts))
	uplinks := make([]backend.Uplink, len(hosts))
	for i, h := range hosts {
		a := ipfam.Pair[netip.Addr]{
			netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", h.n)), netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", h.n)),
		}
		h.AddAddr("eth0", a[ipfam.V4].String()+"/24")
		h.AddAddr("eth0", a[ipfam.V6].String()+"/64")
		h.setUp(t)
		uplinks[i] = backend.Uplink{Name: "eth0", Index: h.Index("eth0"), MTU: 1500, Addr: a, Public: a}
		backends[i] = backendtest.New(t, w.backend, w.object, backendtest.Env(true, true))
		leases[i] = backendtest.Node(w.backend.Name, h.n, func(l *subnet.Lease) { l.Attrs = backends[i].Attrs(uplinks[i]) })
	}
	for i, h := range hosts {
		var err error
		h.state, h.peers, err = backends[i].Plan(leases[i], []subnet.Lease{leases[1-i]},
			backend.Host{Uplink: uplinks[i], OnLinkRoutes: backendtest.Host().OnLinkRoutes})
		if err != nil {
			t.Fatal(err)
		}
		h.kernel, err = kernel.New(kernel.Options{
			Log: slog.New(slog.DiscardHandler), Namespace: int(h.Namespace), LockDir: t.TempDir(),
			Scope: kernel.Scope{Networks: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fc00::/48")}, Instance: "test"},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.kernel.Close() })
		if _, err := h.kernel.Apply(t.Context(), h.state, false); err != nil {
			t.Fatal(err)
		}
	}
	return hosts
}

func (h *host) setUp(t testing.TB) {
	t.Helper()
	h.Do(func() {
		setSysctl(t, "net/ipv4/ip_forward", "1")
		setSysctl(t, "net/ipv6/conf/all/forwarding", "1")
	})
	h.AddBridge("cni0", h.podAddrs(1)...)
	h.addPod(t, "veth0", h.pod)
	h.Tool("nft", "add table inet test")
	h.Tool("nft", "add chain inet test forward { type filter hook forward priority 0 ; }")
	h.Tool("nft", "add rule inet test forward ct state invalid counter drop")
	h.Tool("nft", "add rule inet test forward ct state established counter accept")
}

// addPod connects a namespace to the bridge.
func (h *host) addPod(t testing.TB, veth string, pod *nstest.NS) {
	t.Helper()
	h.AddVeth(veth, "inside")
	move(t, h.NS, "inside", pod, "eth0")
	h.IP("link set", veth, "master cni0")
	for f, a := range h.podAddrs(2) {
		pod.AddAddr("eth0", a)
		pod.IP("route add default via", netip.MustParsePrefix(h.podAddrs(1)[f]).Addr().String())
	}
}

func setSysctl(t testing.TB, name, value string) {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
		t.Error(err)
	}
}

// move takes a device to another namespace and names it anew.
func move(t testing.TB, from *nstest.NS, dev string, to *nstest.NS, name string) {
	t.Helper()
	if err := from.Handle.LinkSetNsFd(from.Link(dev), int(to.Namespace)); err != nil {
		t.Fatal(err)
	}
	to.IP("link set", dev, "name", name)
	to.Up(name)
}

var counter = regexp.MustCompile(`ct state invalid counter packets (\d+)`)

// invalid is how many packets conntrack has found invalid.
func (h *host) invalid(t testing.TB) int {
	t.Helper()
	found := counter.FindStringSubmatch(h.Tool("nft", "list table inet test"))
	if found == nil {
		t.Fatal("no rule for invalid packets")
	}
	n, _ := strconv.Atoi(found[1])
	return n
}

// listen opens a TCP port in the pod.
func (h *host) listen(t testing.TB, f ipfam.Family) *net.TCPListener {
	t.Helper()
	var l *net.TCPListener
	h.pod.Do(func() {
		var err error
		if l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(h.podAddr(f), 0))); err != nil {
			t.Error(err)
		}
	})
	if l == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// dial connects the pod to an address.
func (h *host) dial(t testing.TB, addr net.Addr) *net.TCPConn {
	t.Helper()
	var c *net.TCPConn
	h.pod.Do(func() {
		var err error
		if c, err = net.DialTCP("tcp", nil, addr.(*net.TCPAddr)); err != nil {
			t.Error(err)
		}
	})
	if c == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
