package network

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"flannel/backend"
	"flannel/backend/vxlan"
	"flannel/internal/health"
	"flannel/internal/ipfam"
	"flannel/internal/loop"
	"flannel/internal/metrics"
	"flannel/internal/testkit/eventually"
	"flannel/kernel"
	"flannel/kernel/kerneltest"
	"flannel/subnet"
	"flannel/subnet/env"
	"flannel/subnet/subnettest"
)

// TestMain fails when a test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeUplink is an uplink that the test moves.
type fakeUplink struct {
	moved loop.Signal

	mu   sync.Mutex
	host backend.Host
	gone error
}

func newUplink(index int) *fakeUplink {
	u := &fakeUplink{moved: loop.NewSignal()}
	u.host.Uplink = backend.Uplink{Name: "eth0", Index: index, MTU: 1500}
	u.setAddr("192.0.2.1")
	return u
}

func (u *fakeUplink) setAddr(s string) {
	a := ipfam.Pair[netip.Addr]{netip.MustParseAddr(s)}
	u.host.Uplink.Addr, u.host.Uplink.Public = a, a
}

func (u *fakeUplink) move(change func()) {
	u.mu.Lock()
	change()
	u.mu.Unlock()
	u.moved.Send()
}

func (u *fakeUplink) Wait(context.Context) (backend.Host, error) { return u.Current() }

func (u *fakeUplink) Current() (backend.Host, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.host, u.gone
}

func (u *fakeUplink) Run(ctx context.Context, changed func()) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-u.moved:
			changed()
		}
	}
}

// testNode is a Network on fakes that runs until the test ends.
type testNode struct {
	*Network
	t      *testing.T
	store  *subnettest.Store
	kernel *kerneltest.Fake
	uplink *fakeUplink
	health *health.Registry
	file   string
}

func newNode(t *testing.T) *testNode {
	n := &testNode{
		t: t, store: subnettest.NewStore(), kernel: kerneltest.New(kernel.Scope{}),
		health: health.New(nil), file: filepath.Join(t.TempDir(), "subnet.env"),
	}
	n.store.SetConfig(`{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}`)
	n.uplink = newUplink(n.kernel.AddLink("eth0", 1500))
	n.Network = New(Options{
		Log:     slog.New(slog.DiscardHandler),
		Manager: n.store.Manager(1),
		NewUplink: func(ipfam.Pair[bool], ipfam.Pair[netip.Addr], bool) (Uplink, error) {
			return n.uplink, nil
		},
		NewKernel: func(s kernel.Scope) (Kernel, error) {
			n.kernel = n.kernel.Restart(s)
			return n.kernel, nil
		},
		DeviceMAC:       func(string) kernel.MAC { return kernel.MAC{2, 0, 0, 0, 0, 1} },
		ReaddressBridge: func(string, env.Env) ([]netip.Prefix, error) { return nil, nil },
		Backends:        backend.Table{vxlan.Type},
		Health:          n.health,
		Metrics:         metrics.New("test"),
		SubnetFile:      n.file,
	})
	return n
}

func (n *testNode) start() {
	n.t.Helper()
	subnettest.Background(n.t, n.Run)
	n.await("ready", n.health.Ready)
}

func (n *testNode) await(what string, ok func() bool) {
	n.t.Helper()
	eventually.True(n.t, what, ok)
}

// peer publishes the lease of another node.
func (n *testNode) peer(number string) subnet.Lease {
	l := subnet.Lease{Subnet: subnettest.Subnets("10.5." + number + ".0/24")}
	l.Attrs = subnet.Attrs{BackendType: vxlan.Type.Name, PublicIP: ipfam.Pair[netip.Addr]{netip.MustParseAddr("192.0.2." + number)}}
	l.Attrs.Data[ipfam.V4] = `{"VNI":1,"VtepMAC":"02:00:00:00:01:` + number + `"}`
	n.store.Put(l, false)
	return l
}

// last is the outcome of the latest pass, as /status shows it.
func (n *testNode) last() string {
	answer := httptest.NewRecorder()
	n.ServeStatus(answer, nil)
	return answer.Body.String()
}

func TestPeersReachTheKernelAndLeaveIt(t *testing.T) {
	n := newNode(t)
	n.peer("22")
	n.start()
	n.await("the first peer", func() bool { return strings.Contains(n.kernel.String(), "10.5.22.0/24") })
	l := n.peer("33")
	n.await("the second peer", func() bool { return strings.Contains(n.kernel.String(), "10.5.33.0/24") })
	n.store.Delete(l.Subnet)
	n.await("the second peer gone", func() bool { return !strings.Contains(n.kernel.String(), "10.5.33.0/24") })
	if s := n.last(); !strings.Contains(s, `"how": "tunnel"`) || !strings.Contains(s, `"via": "192.0.2.22"`) {
		t.Errorf("status %s", s)
	}
	text, err := os.ReadFile(n.file)
	if err != nil || !strings.Contains(string(text), "FLANNEL_MTU=1450\n") {
		t.Errorf("subnet file %q %v", text, err)
	}
}

func TestOnePeerThatFailsHarmsNoOther(t *testing.T) {
	n := newNode(t)
	n.peer("22")
	n.peer("33")
	open := n.NewKernel
	n.NewKernel = func(s kernel.Scope) (Kernel, error) {
		k, err := open(s)
		n.kernel.Refuse(func(entry string) error {
			if strings.HasPrefix(entry, "route 10.5.22.0/24") {
				return errors.New("no room")
			}
			return nil
		})
		return k, err
	}
	n.start()
	n.await("the other peer", func() bool { return strings.Contains(n.kernel.String(), "route 10.5.33.0/24") })
	n.await("the failed one in the status", func() bool {
		return strings.Contains(n.last(), `"how": "unreachable"`) && strings.Contains(n.last(), "no room")
	})
}

func TestANewAddressIsPublishedForTheSameSubnet(t *testing.T) {
	n := newNode(t)
	n.start()
	own := n.own.Load().Subnet
	n.uplink.move(func() { n.uplink.setAddr("192.0.2.9") })
	n.await("the record with the new address", func() bool {
		l, _, found := n.store.Get(own)
		return found && l.Attrs.PublicIP[ipfam.V4].String() == "192.0.2.9"
	})
	n.await("the device with the new address", func() bool { return strings.Contains(n.kernel.String(), "local 192.0.2.9") })
}

func TestAnUplinkThatIsGoneIsReportedAndLeavesTheState(t *testing.T) {
	n := newNode(t)
	n.peer("22")
	n.start()
	n.await("the peer", func() bool { return strings.Contains(n.kernel.String(), "10.5.22.0/24") })
	before := n.kernel.String()
	n.uplink.move(func() { n.uplink.gone = errors.New("eth0 has no address") })
	n.await("the problem", func() bool {
		return strings.Contains(strings.Join(n.health.Problems(), "\n"), "uplink: eth0 has no address")
	})
	if now := n.kernel.String(); now != before {
		t.Errorf("before:\n%s\nnow:\n%s", before, now)
	}
}

func TestALostLeaseLeadsToAnotherSubnetFile(t *testing.T) {
	n := newNode(t)
	n.start()
	own := *n.own.Load()
	stranger := n.peer("44")
	stranger.Subnet = own.Subnet
	n.store.Put(stranger, false)
	n.await("another subnet in the file", func() bool {
		text, err := os.ReadFile(n.file)
		now := n.own.Load().Subnet
		return err == nil && now != own.Subnet && strings.Contains(string(text), now[ipfam.V4].Addr().Next().String()+"/24")
	})
}

func TestAnOutageDeletesNothing(t *testing.T) {
	n := newNode(t)
	n.peer("22")
	n.start()
	n.await("the peer", func() bool { return strings.Contains(n.kernel.String(), "10.5.22.0/24") })
	n.store.SetReachable(false)
	if n.kernel.Delete("route 10.5.22.0/24") != 1 {
		t.Fatalf("nothing deleted of\n%s", n.kernel)
	}
	n.await("the route again", func() bool { return strings.Contains(n.kernel.String(), "route 10.5.22.0/24") })
}

// Pods of one family need not wait for the other.
func TestTheSubnetFileIsRestored(t *testing.T) {
	n := newNode(t)
	n.start()
	want, err := os.ReadFile(n.file)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func() error{
		"deleted":          func() error { return os.Remove(n.file) },
		"emptied":          func() error { return os.Truncate(n.file, 0) },
		"another mode":     func() error { return os.Chmod(n.file, 0o600) },
		"its folder moved": func() error { return os.Rename(filepath.Dir(n.file), filepath.Dir(n.file)+".away") },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		eventually.True(t, name+": the file as before", func() bool {
			have, err := os.ReadFile(n.file)
			info, _ := os.Stat(n.file)
			return err == nil && string(have) == string(want) && info.Mode() == 0o644
		})
	}
}

func TestAFamilyThatCannotBeMadeIsNotInTheSubnetFile(t *testing.T) {
	n := newNode(t)
	n.store.SetConfig(`{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48", "Backend": {"Type": "vxlan"}}`)
	v6 := netip.MustParseAddr("2001:db8::1")
	n.uplink.host.Uplink.Addr[ipfam.V6], n.uplink.host.Uplink.Public[ipfam.V6] = v6, v6
	var broken atomic.Bool
	broken.Store(true)
	open := n.NewKernel
	n.NewKernel = func(s kernel.Scope) (Kernel, error) {
		k, err := open(s)
		n.kernel.Refuse(func(entry string) error {
			if broken.Load() && strings.HasPrefix(entry, "link flannel-v6.1") {
				return errors.New("no room")
			}
			return nil
		})
		return k, err
	}
	subnettest.Background(t, n.Run)
	file := func() string {
		text, _ := os.ReadFile(n.file)
		return string(text)
	}
	n.await("the subnet file", func() bool { return file() != "" })
	if s := file(); !strings.Contains(s, "FLANNEL_SUBNET=10.5.") || strings.Contains(s, "IPV6") {
		t.Errorf("got %s, want IPv4 alone", s)
	}
	if n.health.Ready() {
		t.Error("ready without one family")
	}
	broken.Store(false)
	n.await("ready", n.health.Ready)
	if s := file(); !strings.Contains(s, "FLANNEL_IPV6_SUBNET=fd00:5:") {
		t.Errorf("got %s, want both families", s)
	}
	whole := file()
	broken.Store(true)
	n.kernel.Delete("link flannel-v6.1")
	n.await("not in order", func() bool { return strings.Contains(n.last(), "no room") })
	if s := file(); s != whole {
		t.Errorf("got %s, want\n%s", s, whole)
	}
}

func TestTheBlackholeRouteIsKept(t *testing.T) {
	n := newNode(t)
	n.BlackholeRoute = true
	n.start()
	own := n.own.Load().Subnet[ipfam.V4].String()
	blackhole := func() bool { return strings.Contains(n.kernel.String(), "blackhole "+own) }
	n.await("the blackhole route", blackhole)
	if n.kernel.Delete("route blackhole") != 1 {
		t.Fatalf("nothing deleted of\n%s", n.kernel)
	}
	n.await("the blackhole route again", blackhole)
}

func TestTheCallAfterTheSubnetFileIsRepeatedUntilItSucceeds(t *testing.T) {
	n := newNode(t)
	var calls atomic.Int32
	n.SubnetFileWritten = func() error {
		if _, err := os.Stat(n.file); err != nil {
			t.Error("told too early", err)
		}
		if calls.Add(1) == 1 {
			return errors.New("not yet")
		}
		return nil
	}
	n.start()
	n.await("the second call", func() bool { return calls.Load() == 2 })
	n.peer("22")
	n.await("a further pass", func() bool { return strings.Contains(n.kernel.String(), "10.5.22.0/24") })
	if got := calls.Load(); got != 2 {
		t.Errorf("told %d times, want 2", got)
	}
}
