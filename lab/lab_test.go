package lab_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
	"flannel/lab/sandbox"
	"flannel/subnet/env"
)

func TestMain(m *testing.M) { lab.Main(m) }

// noStore are the options of a lab without etcd.
func noStore(hosts int) lab.Options {
	return lab.Options{Hosts: hosts, NoEtcd: true, Families: lab.Dual}
}

var binaries = sync.OnceValues(func() (lab.Binaries, error) { return lab.BuildBinaries() })

func withStore(t *testing.T, hosts int) lab.Options {
	t.Helper()
	if !sandbox.Active() {
		t.Skip("no rights to make namespaces")
	}
	b, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return lab.Options{Hosts: hosts, Binaries: b}
}

// lease writes the subnet.env that a flanneld would write on host n.
func lease(t *testing.T, h *lab.Host) {
	t.Helper()
	e := env.Env{
		Network: ipfam.Pair[[]netip.Prefix]{
			{netip.MustParsePrefix("10.244.0.0/16")}, {netip.MustParsePrefix("fd00:10:244::/48")},
		},
		Subnet: env.Gateways(ipfam.Pair[netip.Prefix]{
			netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", h.Number)),
			netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", h.Number)),
		}),
		MTU: 1450,
	}
	err := h.Do(func() error {
		_, err := env.Write(lab.DefaultSubnetFile, e)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func addPod(t *testing.T, h *lab.Host, name string) *lab.Pod {
	t.Helper()
	p, err := h.AddPod(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// route sends the pods' traffic of host to over the underlay.
func route(t *testing.T, from, to *lab.Host) {
	t.Helper()
	subnets, err := to.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	for f, s := range ipfam.Prefixes(subnets) {
		if _, err := from.Exec(t.Context(), "ip", "route", "add", s.String(), "via", to.Addr(f).String()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHostsHaveTheirOwnNetworkNameAndRun(t *testing.T) {
	l := lab.ForTest(t, noStore(2))
	for _, h := range l.Hosts {
		if _, err := h.Exec(t.Context(), "sh", "-c", "ip link add probe type bridge && touch /run/probe"); err != nil {
			t.Fatal(err)
		}
	}
	h := l.Hosts[0]
	got, err := h.Exec(t.Context(), "sh", "-c", "uname -n; ls /run; ip -o link | wc -l; test -e /sys/fs/cgroup && echo cgroups")
	if err != nil {
		t.Fatal(err)
	}
	if want := "host1\nlab\nlog\nprobe\n3\ncgroups\n"; got != want {
		t.Errorf("host1 sees %q, want %q", got, want)
	}
	if _, err := os.Stat("/run/probe"); err == nil {
		t.Error("a host's file in /run is seen outside of it")
	}
}

func TestTemporaryFilesAreSeenOnHosts(t *testing.T) {
	l := lab.ForTest(t, noStore(1))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := l.Hosts[0].Exec(t.Context(), "cat", file)
	if err != nil || got != "hello" {
		t.Errorf("the host reads %q, %v", got, err)
	}
}

func TestFailedCommandShowsItsError(t *testing.T) {
	l := lab.ForTest(t, noStore(1))
	_, err := l.Hosts[0].Exec(t.Context(), "sh", "-c", "echo why >&2; exit 3")
	if err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("err = %v", err)
	}
}

func TestPodsOfOneHostReachEachOther(t *testing.T) {
	l := lab.ForTest(t, noStore(1))
	h := l.Hosts[0]
	lease(t, h)
	addPod(t, h, "pod1")
	p := addPod(t, h, "pod2")
	// A busy kernel may take a second to open a port of a bridge.
	if err := l.WaitConnected(t.Context()); err != nil {
		t.Error(err)
	}
	if m := l.PingAll(t.Context()); len(m) != 4 {
		t.Errorf("%d pings: %v", len(m), m.Err())
	}
	if got := p.Addr(ipfam.V4).String(); got != "10.244.1.3" {
		t.Errorf("pod2 has %s", got)
	}
	out, err := p.Exec(t.Context(), "ip", "-o", "link", "show", "eth0")
	if err != nil || !strings.Contains(out, "mtu 1450") {
		t.Errorf("link of the pod: %q, %v", out, err)
	}
}

func TestRouterJoinsTheLinks(t *testing.T) {
	o := noStore(3)
	o.Links = 2
	l := lab.ForTest(t, o)
	for _, h := range l.Hosts {
		lease(t, h)
		addPod(t, h, "pod1")
	}
	a, b, c := l.Hosts[0], l.Hosts[1], l.Hosts[2]
	if a.Link != 1 || b.Link != 2 || c.Link != 1 {
		t.Fatalf("links %d %d %d", a.Link, b.Link, c.Link)
	}
	for _, f := range ipfam.All() {
		pod := a.Pods()[0]
		if out, err := a.Exec(t.Context(), "ip", "route", "get", b.Addr(f).String()); err != nil || !strings.Contains(out, "via") {
			t.Errorf("%s: route to another link: %q, %v", f, out, err)
		}
		if out, err := a.Exec(t.Context(), "ip", "route", "get", c.Addr(f).String()); err != nil || strings.Contains(out, "via") {
			t.Errorf("%s: route on the own link: %q, %v", f, out, err)
		}
		if _, err := pod.Ping(t.Context(), a.Addr(f)); err != nil {
			t.Errorf("pod to its own host: %v", err)
		}
	}
	conn, err := a.Dial(t.Context(), "tcp", netip.AddrPortFrom(b.Addr(ipfam.V4), 1).String())
	if err == nil {
		conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("dial across the router: %v, want refused by the other host", err)
	}
}

func TestPodsReachEachOtherOverTheUnderlay(t *testing.T) {
	l := lab.ForTest(t, noStore(2))
	a, b := l.Hosts[0], l.Hosts[1]
	for _, h := range l.Hosts {
		lease(t, h)
		addPod(t, h, "pod1")
	}
	if err := l.PingAll(t.Context()).Err(); err == nil {
		t.Error("pods reach each other without routes")
	}
	route(t, a, b)
	route(t, b, a)
	if err := l.WaitConnected(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPingCountsWhatIsLostWhileTheCableIsOut(t *testing.T) {
	l := lab.ForTest(t, noStore(2))
	a, b := l.Hosts[0], l.Hosts[1]
	for _, h := range l.Hosts {
		lease(t, h)
		addPod(t, h, "pod1")
	}
	route(t, a, b)
	route(t, b, a)
	for _, f := range ipfam.All() {
		t.Run(f.String(), func(t *testing.T) {
			if err := l.WaitConnected(t.Context()); err != nil {
				t.Fatal(err)
			}
			p, err := a.Pods()[0].StartPing(b.Pods()[0].Addr(f), 5*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			received := func() int { return p.Stats().Received }
			eventually.True(t, "20 answers", func() bool { return received() >= 20 })
			if s := p.Stats(); s.Lost != 0 {
				t.Errorf("before the cut: %s", s)
			}
			if err := b.Unplug(); err != nil {
				t.Fatal(err)
			}
			cut := p.Stats().Sent
			eventually.True(t, "30 more pings", func() bool { return p.Stats().Sent >= cut+30 })
			mended := p.Stats().Sent
			if err := b.Plug(); err != nil {
				t.Fatal(err)
			}
			after := received()
			eventually.True(t, "20 more answers", func() bool { return received() >= after+20 })
			got := p.Stop()
			// Requests under way at the cut and at the mending may go either way.
			if got.Lost < mended-cut-2 || got.Sent != got.Received+got.Lost || got.Pending != 0 {
				t.Errorf("%s; %d were sent while the cable was out", got, mended-cut)
			}
			if got.LongestGap < 100*time.Millisecond {
				t.Errorf("longest gap %s, while 30 pings 5 ms apart were lost", got.LongestGap)
			}
		})
	}
}

func TestUplinkComesBackAfterItWasDeleted(t *testing.T) {
	l := lab.ForTest(t, noStore(1))
	h := l.Hosts[0]
	if _, err := h.Exec(t.Context(), "ip", "link", "del", lab.Uplink); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the uplink connected", func() bool { return h.ConnectUplink() == nil })
	out, err := h.Exec(t.Context(), "ip", "-4", "route", "show", "default")
	if want := "default via 172.31.1.1 dev eth0 \n"; err != nil || out != want {
		t.Errorf("default route %q, %v; want %q", out, err, want)
	}
}

func TestStoreIsReachedFromHostsAndTest(t *testing.T) {
	for name, families := range map[string]lab.Families{"ipv4": lab.IPv4, "ipv6": lab.IPv6, "dual": lab.Dual} {
		t.Run(name, func(t *testing.T) {
			o := withStore(t, 2)
			o.Families, o.Links = families, 2
			l := lab.ForTest(t, o)
			got, err := l.Etcd.List(t.Context(), lab.DefaultPrefix+"/")
			if err != nil || !strings.Contains(got[lab.DefaultPrefix+"/config"], `"vxlan"`) {
				t.Errorf("keys %v, %v", got, err)
			}
			for _, h := range l.Hosts {
				conn, err := h.Dial(t.Context(), "tcp", strings.TrimPrefix(l.Etcd.Endpoint(), "http://"))
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
			}
		})
	}
}

func TestStoreStopsStartsAndForgets(t *testing.T) {
	l := lab.ForTest(t, withStore(t, 0))
	ctx, e := t.Context(), l.Etcd
	check := func(step string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", step, err)
		}
	}
	keys := func(step, want string) {
		t.Helper()
		got, err := e.List(ctx, "/k")
		check(step, err)
		if fmt.Sprint(got) != want {
			t.Errorf("%s: keys %v, want %s", step, got, want)
		}
	}
	snapshot := filepath.Join(t.TempDir(), "snapshot")
	check("put", e.Put(ctx, "/k1", "old"))
	check("snapshot", e.Snapshot(ctx, snapshot))
	check("put", e.Put(ctx, "/k2", "late"))
	check("compact", e.Compact(ctx))
	check("stop", e.Stop())
	check("start", e.Start(ctx))
	keys("restart", "map[/k1:old /k2:late]")
	check("delete", e.Delete(ctx, "/k2"))
	keys("delete", "map[/k1:old]")
	check("put", e.Put(ctx, "/k3", "x"))
	check("kill", e.Kill())
	check("restore", e.Restore(ctx, snapshot))
	check("start", e.Start(ctx))
	keys("restore", "map[/k1:old]")
	check("delete all", e.DeletePrefix(ctx, "/"))
	check("stop", e.Stop())
	check("wipe", e.Wipe())
	check("start", e.Start(ctx))
	if rev, err := e.Revision(ctx); err != nil || rev != 1 {
		t.Errorf("revision %d, %v after a wipe", rev, err)
	}
}

func TestLimitsAreNamed(t *testing.T) {
	for _, o := range []lab.Options{{Hosts: 201}, {Links: -1}} {
		if _, err := lab.New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "are possible") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestClosedLabLeavesNothing(t *testing.T) {
	before := world(t)
	o := withStore(t, 3)
	l, err := lab.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range l.Hosts {
		lease(t, h)
		addPod(t, h, "pod1")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// The threads of the lab end a moment after their work.
	eventually.True(t, "nothing left behind", func() bool { return world(t) == before })
}

// world lists what a lab could leave behind in this sandbox: namespaces that
// threads or descriptors hold, processes, mounts, files.
func world(t *testing.T) string {
	t.Helper()
	seen := map[string]bool{}
	for _, pattern := range []string{"/proc/self/task/*/ns/*", "/proc/self/fd/*", "/proc/[0-9]*/exe"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			target, _ := os.Readlink(name)
			if strings.Contains(target, ":[") && !strings.Contains(target, "pipe") || strings.HasSuffix(name, "exe") {
				// The numbers of descriptors are of no interest.
				seen[target] = true
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir("/run/lab")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(seen, string(mounts), len(files))
}
