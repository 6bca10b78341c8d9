package status

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flannel/backend"
	"flannel/backend/udp"
	"flannel/backend/vxlan"
	"flannel/internal/firewall"
	"flannel/internal/passage"
	"flannel/internal/socket"
	"flannel/internal/testkit/golden"
	"flannel/kernel"
	"flannel/kernel/look"
	"flannel/network"
)

var now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// running is the report of a node with three peers.
func running() *Report {
	expires := now.Add(23*time.Hour + 59*time.Minute)
	return &Report{
		backends: backend.Table{udp.Type, vxlan.Type},
		Schema:   Schema, From: FromDaemon, Asked: "/run/flannel/subnet.sock", Ready: true,
		Problems: []string{"peers: 1 left out or unreachable; /status names them", "store: cannot be reached: connection refused"},
		Status: &network.Status{
			Backend: "vxlan", Network: prefixes("10.5.0.0/16"),
			Lease: network.LeaseStatus{
				Name: "node-1", Subnet: prefixes("10.5.1.0/24"), PublicIP: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Expires: &expires,
			},
			Uplink:  network.UplinkStatus{Name: "eth0", MTU: 1500, Addr: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Why: "default route"},
			Devices: []network.DeviceStatus{{Name: "flannel.1", MTU: 1450}},
			Peers: []network.Peer{
				{Name: "node-3", Family: "ipv4", Subnet: "10.5.3.0/24", Via: "192.0.2.3", How: "tunnel", Why: "over flannel.1", Since: ago(75 * time.Hour)},
				{Name: "node-2", Family: "ipv4", Subnet: "10.5.2.0/24", Via: "192.0.2.2", How: "tunnel", Why: "over flannel.1", Since: ago(9 * time.Minute), Note: "public address 192.0.2.2 is that of 10.5.3.0/24"},
				{Name: "node-4\x1b[2J", Family: "ipv4", Subnet: "10.5.4.0/24", How: "left out", Why: "no public ipv4 address", Since: ago(150 * time.Minute)},
			},
			LastPass: network.PassStatus{At: ago(3 * time.Second), Took: "1.2ms", Changes: 3},
		},
		Devices: []Device{{Name: "flannel.1", RxBytes: 1_234_567, RxPackets: 2000, TxBytes: 999, TxPackets: 9}},
	}
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func TestText(t *testing.T) {
	starting := &Report{
		Schema: Schema, From: FromDaemon, Asked: "/run/flannel/subnet.sock",
		Problems: []string{"waiting for: a pod CIDR of Node node-1", "rules: not written yet", "lease: waiting for a subnet"},
	}
	away := &Report{Schema: Schema, From: FromKernel, Asked: "/run/flannel/subnet.sock", NoAnswer: noAnswer(socket.ErrNoDaemon, "/run/flannel/subnet.sock"), Status: &network.Status{
		Network: prefixes("10.5.0.0/16"), Lease: network.LeaseStatus{Subnet: prefixes("10.5.1.0/24")},
	}, backends: running().backends}
	away.Status.Peers = PeersOf([]look.Route{
		{Dst: netip.MustParsePrefix("10.5.0.0/16"), Dev: "flannel.1", Protocol: kernel.RouteProtocol},
		{Dst: netip.MustParsePrefix("10.5.2.0/24"), Dev: "flannel.1", Via: netip.MustParseAddr("10.5.2.0"), Protocol: kernel.RouteProtocol},
		{Dst: netip.MustParsePrefix("10.5.3.0/24"), Dev: "eth0", Via: netip.MustParseAddr("192.0.2.3"), Protocol: kernel.RouteProtocol},
		{Dst: netip.MustParsePrefix("10.5.1.0/24"), Type: "blackhole", Protocol: kernel.RouteProtocol},
	}, fakeKernel{}.Links(), away.backends, away.Status.Network)
	probed := running()
	probed.Status.Peers[0].Probe = &backend.Probed{Verdict: backend.Broken, Why: "has not answered for 12s"}
	probed.Status.Peers[1].Probe = &backend.Probed{Verdict: backend.Fine, RoundTrip: 0.0012}
	var b strings.Builder
	for _, r := range []struct {
		name   string
		report *Report
		wide   bool
	}{{"running", running(), false}, {"probed", probed, false}, {"wide", running(), true}, {"starting", starting, false}, {"no daemon", away, false}} {
		fmt.Fprintf(&b, "# %s\n", r.name)
		if err := r.report.WriteText(&b, now, r.wide); err != nil {
			t.Fatal(err)
		}
		b.WriteString("\n")
	}
	golden.Equal(t, b.String(), "testdata/text.txt")
}

// fakeKernel holds the entries of a healthy vxlan; what is set differs.
type fakeKernel struct {
	route    look.Route
	routeErr error
	under    string
	mac      kernel.MAC
	fdb      string
	down     bool
	// sourced is the route of packets from pods, if they have another one.
	sourced look.Route
	addrs   []kernel.HostAddr
	filters Filters
	// settings are those that are not as the kernel has them by default.
	settings map[string]string
}

func (k fakeKernel) Setting(name string) string { return k.settings[name] }

func (k fakeKernel) Lookup(dst, source netip.Addr) (look.Route, error) {
	if source.IsValid() && k.sourced.Dev != "" {
		return k.sourced, nil
	}
	if !netip.MustParsePrefix("10.5.0.0/16").Contains(dst) {
		return look.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Dev: k.under}, nil
	}
	return k.route, k.routeErr
}

func (k fakeKernel) Neighbor(string, netip.Addr) (kernel.MAC, error) { return k.mac, nil }

func (k fakeKernel) FDB(string, kernel.MAC) (netip.Addr, error) {
	a, _ := netip.ParseAddr(k.fdb)
	return a, nil
}

func (k fakeKernel) Links() look.Links {
	return look.Links{
		{Name: "flannel.1", Kind: kernel.KindVXLAN, MTU: 1450, Up: !k.down, VXLAN: kernel.VXLAN{VNI: 1, Port: 8472}},
		{Name: "flannel0", Kind: kernel.KindTUN, Up: true},
		{Name: "cni0", Kind: "bridge", Up: true}, {Name: "eth0", Up: true}, {Name: "eth1", Up: true},
	}
}

// Host has a blackhole in place of the route, if the lookup fails as with one.
func (k fakeKernel) Host(func(look.Route) bool) (look.Host, error) {
	h := look.Host{Links: k.Links(), Addrs: k.addrs, Rules: []look.Rule{{Priority: 220, Table: 220}, {Priority: 230, Table: 220}}}
	if errors.Is(k.routeErr, unix.EINVAL) {
		h.Routes = []look.Route{{Dst: netip.MustParsePrefix("10.5.2.0/24"), Type: "blackhole"}}
	}
	return h, nil
}

func healthy() fakeKernel {
	return fakeKernel{
		route: look.Route{
			Dst: netip.MustParsePrefix("10.5.2.0/24"), Via: netip.MustParseAddr("10.5.2.0"), Dev: "flannel.1", Table: 254, Protocol: kernel.RouteProtocol,
		},
		under: "eth0", mac: kernel.MAC{2, 0, 0, 0, 0, 2}, fdb: "192.0.2.2",
	}
}

func TestTheWayToAPeer(t *testing.T) {
	var b strings.Builder
	explain := func(name, to string, change func(*fakeKernel, *Report)) {
		t.Helper()
		k, r := healthy(), running()
		change(&k, r)
		ways, err := r.Find(to)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "# %s\n", name)
		for _, w := range ways {
			r.Explain(&w, k, k.filters)
			if err := w.WriteText(&b); err != nil {
				t.Fatal(err)
			}
		}
		b.WriteString("\n")
	}
	same := func(*fakeKernel, *Report) {}
	explain("a pod", "10.5.2.7", same)
	explain("a name", "node-2", same)
	explain("the address of a node", "192.0.2.2", same)
	explain("this node", "10.5.1.7", same)
	explain("no lease", "10.5.9.7", same)
	explain("outside", "8.8.8.8", same)
	explain("left out", "10.5.4.9", same)
	explain("a stale route", "10.5.2.7", func(k *fakeKernel, _ *Report) {
		k.route = look.Route{Dst: netip.MustParsePrefix("10.5.2.0/25"), Via: netip.MustParseAddr("192.0.2.9"), Dev: "eth0", Table: 254}
	})
	explain("no route of ours", "10.5.2.7", func(k *fakeKernel, _ *Report) {
		k.route = look.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Dev: "eth0", Table: 254}
	})
	explain("no route", "10.5.2.7", func(k *fakeKernel, _ *Report) { k.routeErr = unix.ENETUNREACH })
	explain("a blackhole", "10.5.2.7", func(k *fakeKernel, _ *Report) { k.routeErr = unix.EINVAL })
	explain("device down", "10.5.2.7", func(k *fakeKernel, _ *Report) { k.down = true })
	explain("no neighbor", "10.5.2.7", func(k *fakeKernel, _ *Report) { k.mac = kernel.MAC{} })
	explain("no FDB entry", "10.5.2.7", func(k *fakeKernel, _ *Report) { k.fdb = "" })
	explain("another host", "10.5.2.7", func(k *fakeKernel, _ *Report) { k.fdb = "192.0.2.9" })
	explain("on demand", "10.5.2.7", func(k *fakeKernel, _ *Report) {
		k.route.Dst, k.route.Via = netip.MustParsePrefix("10.5.0.0/16"), netip.Addr{}
	})
	explain("udp", "10.5.2.7", func(k *fakeKernel, r *Report) {
		k.route.Dev, k.route.Via = "flannel0", netip.Addr{}
		r.Status.Devices[0].Name = "flannel0"
	})
	explain("rules", "10.5.2.7", func(_ *fakeKernel, r *Report) { r.Problems = []string{"forwarding: the policy of FORWARD drops"} })
	explain("the overlay under the overlay", "10.5.2.7", func(k *fakeKernel, _ *Report) { k.under = "flannel.1" })
	probed := func(p *backend.Probed) func(*fakeKernel, *Report) {
		return func(_ *fakeKernel, r *Report) { r.Status.Peers[1].Probe = p }
	}
	explain("fine", "10.5.2.7", probed(&backend.Probed{Verdict: backend.Fine, RoundTrip: 0.0012}))
	explain("silent", "10.5.2.7", probed(&backend.Probed{Verdict: backend.Silent, Why: "has never answered", Cause: backend.NoAnswer}))
	explain("broken", "10.5.2.7", probed(&backend.Probed{Verdict: backend.Broken, Why: "no answer", Cause: backend.NoAnswer}))
	explain("broken, others are not", "10.5.2.7", func(_ *fakeKernel, r *Report) {
		r.Status.Peers[0].Probe = &backend.Probed{Verdict: backend.Fine}
		r.Status.Peers[1].Probe = &backend.Probed{Verdict: backend.Broken, Why: "no answer", Cause: backend.NoAnswer}
	})
	explain("its probes arrive", "10.5.2.7", probed(&backend.Probed{Verdict: backend.Broken, Why: "no answer, but its own probes arrive here", Cause: backend.WayThere}))
	explain("its probes arrive over udp", "10.5.2.7", func(k *fakeKernel, r *Report) {
		k.route.Dev, k.route.Via = "flannel0", netip.Addr{}
		r.Status.Devices[0].Name = "flannel0"
		r.Status.Peers[1].Probe = &backend.Probed{Verdict: backend.Broken, Why: "no answer, but its own probes arrive here", Cause: backend.WayThere}
	})
	explain("large packets are lost", "10.5.2.7", probed(&backend.Probed{
		Verdict: backend.Broken, Why: "packets of 1450 bytes are lost; the largest that arrive have 1400 bytes: set Backend.MTU to 1450", Cause: backend.TooLarge,
	}))
	explain("large packets do not leave", "10.5.2.7", probed(&backend.Probed{Verdict: backend.Fine, Why: "packets of 1450 bytes do not leave this host", Cause: backend.Local}))
	explain("nothing leaves", "10.5.2.7", probed(&backend.Probed{Verdict: backend.Broken, Why: "packets do not leave this host: operation not permitted", Cause: backend.Local}))
	explain("another uplink", "10.5.2.7", func(k *fakeKernel, _ *Report) { k.under = "wg0" })
	bridge := kernel.HostAddr{Dev: "cni0", Addr: netip.MustParsePrefix("10.5.1.1/24")}
	explain("a rule for packets of pods", "10.5.2.7", func(k *fakeKernel, _ *Report) {
		k.addrs = []kernel.HostAddr{bridge}
		k.sourced = look.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.9"), Dev: "eth0", Table: 220}
	})
	explain("an address of this host", "10.5.2.7", func(k *fakeKernel, _ *Report) {
		k.addrs = []kernel.HostAddr{bridge, {Dev: "eth0", Addr: netip.MustParsePrefix("10.5.2.9/25")}}
		k.route = look.Route{Dst: netip.MustParsePrefix("10.5.2.0/25"), Dev: "eth0", Table: 254, Protocol: unix.RTPROT_KERNEL}
	})
	filters := func(certain bool) func(*fakeKernel, *Report) {
		return func(k *fakeKernel, _ *Report) {
			k.filters = func(packets []passage.Packet) (drops []passage.Drop, err error) {
				for _, p := range packets {
					base := firewall.Base{Chain: "OUTPUT", Table: "ip raw", Program: "iptables-nft"}
					if p.Port == 8472 && !p.Inward {
						drops = append(drops, passage.Drop{Packet: p, Finding: firewall.Finding{Base: base, In: "OUTPUT", Rule: 7, Position: 1, Text: "-p udp -j DROP", Certain: certain}})
					}
				}
				return drops, nil
			}
		}
	}
	explain("a drop", "10.5.2.7", filters(true))
	explain("perhaps a drop", "10.5.2.7", filters(false))
	explain("no drop", "10.5.2.7", func(k *fakeKernel, _ *Report) {
		k.filters = func([]passage.Packet) ([]passage.Drop, error) { return nil, nil }
	})
	explain("filters that cannot be read", "10.5.2.7", func(k *fakeKernel, _ *Report) {
		k.filters = func([]passage.Packet) ([]passage.Drop, error) { return nil, unix.EPERM }
	})
	explain("settings that drop nothing here, and a drop", "10.5.2.7", func(k *fakeKernel, r *Report) {
		filters(true)(k, r)
		k.addrs = []kernel.HostAddr{bridge, {Dev: "eth0", Addr: netip.MustParsePrefix("192.0.2.1/24")}, {Dev: "eth1", Addr: netip.MustParsePrefix("198.51.100.1/24")}}
		k.settings = map[string]string{"net.ipv4.conf.eth0.rp_filter": "1", "net.bridge.bridge-nf-call-iptables": "0"}
		r.Problems = []string{"settings: net.ipv4.conf.eth0.rp_filter is 1: packets are dropped; set it with: sysctl -w net.ipv4.conf.eth0.rp_filter=2"}
	})
	explain("settings that drop", "10.5.2.7", func(k *fakeKernel, r *Report) {
		filters(true)(k, r)
		k.under = "eth1"
		k.settings = map[string]string{"net.ipv4.conf.eth0.rp_filter": "1", "net.ipv4.ip_forward": "0"}
		r.Problems = []string{"rules: the kernel refuses them"}
	})
	explain("settings of the other family", "10.5.2.7", func(k *fakeKernel, _ *Report) {
		k.settings = map[string]string{"net.ipv6.conf.all.forwarding": "0"}
	})
	golden.Equal(t, b.String(), "testdata/ways.txt")
}

func TestNobodyIsCalledLikeThat(t *testing.T) {
	if _, err := running().Find("node-9"); err == nil || !strings.Contains(err.Error(), `no peer is called "node-9"`) {
		t.Errorf("got %v", err)
	}
	empty := &Report{Problems: []string{"lease: waiting"}}
	if _, err := empty.Find("node-9"); err == nil || !strings.Contains(err.Error(), "lease: waiting") {
		t.Errorf("got %v", err)
	}
}

// TestADaemonThatCannotBeAsked may run: that none answers would be wrong.
func TestADaemonThatCannotBeAsked(t *testing.T) {
	for want, err := range map[string]error{
		"none answers on S": fmt.Errorf("%w on S", socket.ErrNoDaemon),
		"not asked, because this user may not connect to S: run this as root": fmt.Errorf("ask S for /readyz: %w", errors.Join(unix.EACCES, nil)),
		"no answer on S within 5s":            context.DeadlineExceeded,
		"S answers /status with 500: no room": errors.New("S answers /status with 500: no room"),
	} {
		if got := noAnswer(err, "S"); got != want {
			t.Errorf("%v: got %q, want %q", err, got, want)
		}
	}
}

// TestASocketOfRoot is one that this user may not connect to.
func TestASocketOfRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs to be root, to become somebody else")
	}
	file := t.TempDir() + "/subnet.env"
	listener, err := socket.Listen(t.Context(), socket.Path(file))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan *Report)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with what it has become
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			t.Error(errno)
		}
		r, _ := Ask(t.Context(), Options{SubnetFile: file})
		done <- r
	}()
	if r := <-done; !strings.Contains(r.daemon(), "may not connect") || r.From != FromKernel {
		t.Errorf("got %q", r.daemon())
	}
}

// TestNoProxyIsAsked has a proxy for all addresses but loopback.
func TestNoProxyIsAsked(t *testing.T) {
	answers := func(text string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }))
		t.Cleanup(s.Close)
		_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
		return port
	}
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:"+answers("the proxy"))
	_, body, err := Options{Daemon: "0.0.0.0:" + answers("the daemon")}.Request(t.Context(), http.MethodGet, "/readyz")
	if string(body) != "the daemon" || err != nil {
		t.Errorf("got %q, %v", body, err)
	}
}

func TestWithoutADaemon(t *testing.T) {
	r, err := Ask(t.Context(), Options{SubnetFile: t.TempDir() + "/subnet.env"})
	if !NoDaemon(err) || r.From != FromKernel || len(r.Problems) == 0 {
		t.Errorf("got %+v, %v", r, err)
	}
	if _, err := Ask(t.Context(), Options{SubnetFile: "/none/subnet.env", Daemon: "127.0.0.1:1"}); err == nil || errors.Is(err, unix.ENOENT) {
		t.Errorf("a health port that is closed: got %v", err)
	}
}
