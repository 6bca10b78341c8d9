package kernel_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flannel/internal/testkit/nstest"
	"flannel/kernel"
)

// outOf returns the device that packets to an address leave by, or "" when
// they are dropped.
func (n *node) outOf(t *testing.T, to string) string {
	t.Helper()
	routes, err := n.Handle.RouteGet(net.ParseIP(to))
	if err != nil {
		return ""
	}
	link, err := n.Handle.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Name
}

// The own subnet is dropped as a whole only while no bridge has it.
func TestBlackholeOfTheOwnSubnetGivesWayToTheBridge(t *testing.T) {
	const pod = "10.5.1.7"
	state := func(n *node) kernel.State {
		s := single(n.uplink, 2)
		s.Routes = append(s.Routes, kernel.Route{Dst: subnet4(1), Blackhole: true}, kernel.Route{Dst: network4, Dev: "flannel.1", Metric: 100})
		return s
	}
	t.Run("bridge first", func(t *testing.T) {
		n := newNode(t)
		n.AddBridge("cni0", "10.5.1.1/24", "fd00:5:0:1::1/64")
		apply(t, n, state(n))
		if got := n.outOf(t, pod); got != "cni0" {
			t.Errorf("with the bridge: got %q, want cni0", got)
		}
		n.Down("cni0")
		if got := n.outOf(t, pod); got != "" {
			t.Errorf("without the bridge: got %q, want that packets are dropped", got)
		}
		n.Up("cni0")
		if got := n.outOf(t, pod); got != "cni0" {
			t.Errorf("with the bridge again: got %q, want cni0", got)
		}
		n.Invalidate()
		if stats := apply(t, n, state(n)); stats.Changed() != 0 {
			t.Errorf("resync changed something: %+v", stats)
		}
	})
	t.Run("blackhole first", func(t *testing.T) {
		n := newNode(t)
		apply(t, n, state(n))
		n.AddBridge("cni0", "10.5.1.1/24")
		if got := n.outOf(t, pod); got != "cni0" {
			t.Errorf("got %q, want cni0", got)
		}
	})
}

func TestAConnectedNetworkInTheWayIsNotToBeDeleted(t *testing.T) {
	n := newNode(t)
	n.AddBridge("docker0", "10.5.2.1/24")
	_, err := n.Apply(t.Context(), single(n.uplink, 2), false)
	if err == nil || strings.Contains(err.Error(), "ip route del") || !strings.Contains(err.Error(), "docker0") {
		t.Errorf("got error %v, want one that names the device and advises nothing that cuts it", err)
	}
}

// However the route in the way hides behind others, its owner is found.
func TestTheOwnerOfARouteIsFound(t *testing.T) {
	tests := []struct {
		name   string
		routes []string
		want   string
	}{
		{"via a gateway", []string{"10.5.2.0/24 via 192.0.2.9 proto 4"}, "protocol 4 via 192.0.2.9 dev eth0"},
		{"behind more specific ones", []string{
			"10.5.2.0/24 via 192.0.2.9 proto 4", "10.5.2.0/25 via 192.0.2.8", "10.5.2.128/25 via 192.0.2.8",
		}, "protocol 4 via 192.0.2.9 dev eth0"},
		{"blackhole", []string{"blackhole 10.5.2.0/24 proto 4"}, "protocol 4"},
		{"unreachable", []string{"unreachable 10.5.2.0/24 proto 4"}, "protocol 4"},
		{"IPv6", []string{"fd00:5:0:2::/64 via 2001:db8::9 proto 4"}, "protocol 4 via 2001:db8::9 dev eth0"},
		{"IPv6 behind another metric", []string{
			"fd00:5:0:2::/64 via 2001:db8::9 proto 4", "fd00:5:0:2::/64 via 2001:db8::8 proto 5 metric 7",
		}, "protocol 4 via 2001:db8::9 dev eth0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := newNode(t)
			for _, r := range test.routes {
				n.IP("route add", r)
			}
			stats, err := n.Apply(t.Context(), dual(n.uplink, 2, 3), false)
			if err == nil || !strings.Contains(err.Error(), "("+test.want+")") {
				t.Errorf("got error %v, want one that names %q", err, test.want)
			}
			if len(stats.Failed) != 1 {
				t.Errorf("got %v, want one failed destination", stats.Failed)
			}
			mustKeep := netip.MustParsePrefix("10.5.3.0/24")
			if stats.Failed[mustKeep] != nil || !strings.Contains(n.Dump(), "route 10.5.3.0/24") {
				t.Error("the other peer is missing")
			}
		})
	}
}

// The kernel refuses an IPv6 gateway that another device's route covers.
func TestIPv6PeersMoveBetweenDevices(t *testing.T) {
	direct := func(n *node) kernel.State {
		s := dual(n.uplink, 3)
		s.Routes = append(s.Routes,
			kernel.Route{Dst: subnet4(2), Via: public4(2), Dev: "eth0"}, kernel.Route{Dst: subnet6(2), Via: public6(2), Dev: "eth0"})
		return s
	}
	t.Run("from direct to tunnel and back", func(t *testing.T) {
		n := newNode(t)
		apply(t, n, direct(n))
		before := n.Dump()
		apply(t, n, dual(n.uplink, 2, 3))
		golden(t, n.Dump(), "testdata/dual_kernel.txt")
		apply(t, n, direct(n))
		if n.Dump() != before {
			t.Errorf("got:\n%s\nwant:\n%s", n.Dump(), before)
		}
	})
	t.Run("from one tunnel to another", func(t *testing.T) {
		n := newNode(t)
		old := dual(n.uplink, 2, 3)
		old.Devices[1].Name, old.Devices[1].VXLAN.VNI = "flannel-v6.7", 7
		for i := range old.Routes {
			if old.Routes[i].Dev == "flannel-v6.1" {
				old.Routes[i].Dev, old.Neighbors[i].Dev, old.FDB[i].Dev = "flannel-v6.7", "flannel-v6.7", "flannel-v6.7"
			}
		}
		apply(t, n, old)
		apply(t, n, dual(n.uplink, 2, 3))
		golden(t, n.Dump(), "testdata/dual_kernel.txt")
	})
	t.Run("under a route of the user", func(t *testing.T) {
		n := newNode(t)
		n.IP("route add fd00:5::/48 via 2001:db8::9")
		apply(t, n, dual(n.uplink, 2, 3))
		for _, want := range []string{"route fd00:5:0:2::/64 via fd00:5:0:2:: dev flannel-v6.1", "route fd00:5::/48 via 2001:db8::9"} {
			if !strings.Contains(n.Dump(), want) {
				t.Errorf("lacks %q:\n%s", want, n.Dump())
			}
		}
	})
}

// beside100000 is a node with 100,000 routes of others.
func beside100000(b *testing.B) *node {
	n := newNode(b)
	var batch strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&batch, "route add 20.%d.%d.%d/32 via 192.0.2.9 proto 186\n", i>>16, i>>8&255, i&255)
	}
	path := filepath.Join(b.TempDir(), "routes")
	if err := os.WriteFile(path, []byte(batch.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	n.IP("-batch", path)
	return n
}

// BenchmarkResyncBesideForeignRoutes compares two peers with a kernel that holds
// 100,000 routes of others.
func BenchmarkResyncBesideForeignRoutes(b *testing.B) {
	n := beside100000(b)
	state := single(n.uplink, 2, 3)
	b.ReportAllocs()
	for b.Loop() {
		n.Invalidate()
		if _, err := n.Apply(b.Context(), state, false); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkForeignRouteInTheWay retries one route that somebody else has on a
// host with 100,000 others.
func BenchmarkForeignRouteInTheWay(b *testing.B) {
	n := beside100000(b)
	n.IP("route add 10.5.2.0/24 via 192.0.2.9 proto 4")
	state := single(n.uplink, 2, 3)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := n.Apply(b.Context(), state, false); err == nil {
			b.Fatal("the route was taken")
		}
	}
}

// Another overlay on the host may need the same port or the same VNI.
func TestADeviceOfOthersInTheWayIsNamed(t *testing.T) {
	const command = "`ip -d link show type vxlan`"
	tests := map[string]struct {
		theirs string
		want   []string
	}{
		"the same VNI":  {"link add theirs type vxlan id 1 dstport 8472 local 192.0.2.1 dev eth0", []string{"device theirs has VNI 1 on UDP port 8472", command}},
		"the same port": {"link add theirs type vxlan external dstport 8472", []string{"device theirs has UDP port 8472", command}},
		"of another namespace": {
			"link add theirs type vxlan id 1 dstport 8472 local 192.0.2.1 dev eth0", []string{"moved to another network namespace"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.IP(test.theirs)
			n.Up("theirs")
			if name == "of another namespace" {
				if err := n.Handle.LinkSetNsFd(n.Link("theirs"), int(nstest.New(t).Namespace)); err != nil {
					t.Fatal(err)
				}
			}
			stats, err := n.Apply(t.Context(), single(n.uplink, 2), false)
			if err == nil || stats.DeviceErr == nil {
				t.Fatalf("got %+v, %v, want that the device is not in order", stats, err)
			}
			for _, want := range test.want {
				if !strings.Contains(stats.DeviceErr.Error(), want) {
					t.Errorf("got %v, want %q in it", stats.DeviceErr, want)
				}
			}
		})
	}
	t.Run("no device", func(t *testing.T) {
		n := newNode(t)
		n.Do(func() {
			socket, err := net.ListenPacket("udp4", ":8472")
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = socket.Close() })
		})
		_, err := n.Apply(t.Context(), single(n.uplink, 2), false)
		if err == nil || !strings.Contains(err.Error(), "`ss -ulnp sport = :8472`") {
			t.Errorf("got %v, want the command that shows the program", err)
		}
	})
}
