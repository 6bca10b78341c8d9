package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

// fault is something that happens to the network state of a host.
type fault struct {
	name string
	// commands run on host1; place fills in what host2 has.
	commands []string
	do       func(t *testing.T, l *lab.Lab)
}

// overlay is a backend to test, and what happens to it.
type overlay struct {
	name    string
	backend string
	faults  []fault
	// asked means that what is gone altogether comes back when a pod talks to
	// the peer.
	asked bool
}

func overlays() []overlay {
	return []overlay{
		{"vxlan", `{"Type": "vxlan"}`, append(vxlanFaults(), hostFaults()...), false},
		{"on demand", onDemandBackend, append(vxlanFaults(), hostFaults()...), true},
		{"host-gw", `{"Type": "host-gw"}`, append(plainRouteFaults(), hostFaults()...), false},
		{"udp", `{"Type": "udp"}`, append(tunFaults(), hostFaults()...), false},
	}
}

// hostFaults are what every backend must recover from.
func hostFaults() []fault {
	return []fault{
		{name: "our routes are flushed", commands: []string{"ip route flush proto 70", "ip -6 route flush proto 70"}},
		{name: "the uplink is set down and up", do: func(t *testing.T, l *lab.Lab) {
			onHost(t, l.Hosts[0], "ip link set eth0 down")
			onHost(t, l.Hosts[0], "ip link set eth0 up")
			// The kernel drops IPv6 addresses of a link that goes down.
			lab.Must(t, l.Hosts[0].ConfigureUplink())
		}},
		{name: "the uplink is deleted and made again", do: func(t *testing.T, l *lab.Lab) {
			onHost(t, l.Hosts[0], "ip link del eth0")
			lab.Must(t, l.Hosts[0].ConnectUplink())
		}},
	}
}

// plainRouteFaults are about routes to peers on the link.
func plainRouteFaults() []fault {
	return []fault{
		{name: "a route is deleted", commands: []string{"ip route del SUBNET", "ip -6 route del SUBNET6"}},
		{name: "a route leads elsewhere", commands: []string{
			"ip route replace SUBNET via 172.31.1.1 dev eth0 proto 70", "ip -6 route replace SUBNET6 via fd00:31:0:1::1 dev eth0 proto 70",
		}},
	}
}

// tunFaults are what a backend with a TUN device must recover from.
func tunFaults() []fault {
	return []fault{
		{name: "the route is deleted", commands: []string{"ip route del 10.244.0.0/16 dev flannel0", "ip -6 route del fd00:10:244::/48 dev flannel0"}},
		{name: "the device is deleted", commands: []string{"ip link del flannel0"}},
		{name: "the device is set down", commands: []string{"ip link set flannel0 down"}},
		{name: "the device loses its addresses", commands: []string{"ip addr flush dev flannel0", "ip -6 addr flush dev flannel0"}},
		{name: "the device gets another MTU", commands: []string{"ip link set flannel0 mtu 1300"}},
	}
}

// vxlanFaults are what a backend with vxlan devices must recover from.
func vxlanFaults() []fault {
	return []fault{
		{name: "a route is deleted", commands: []string{"ip route del SUBNET", "ip -6 route del SUBNET6"}},
		{name: "a neighbor is deleted", commands: []string{"ip neigh del VTEP dev flannel.1", "ip -6 neigh del VTEP6 dev flannel-v6.1"}},
		{name: "a neighbor has another MAC", commands: []string{
			"ip neigh replace VTEP dev flannel.1 lladdr 02:00:00:00:00:99 nud permanent",
			"ip -6 neigh replace VTEP6 dev flannel-v6.1 lladdr 02:00:00:00:00:99 nud permanent",
		}},
		{name: "all neighbors are flushed", commands: []string{
			"ip neigh flush nud permanent dev flannel.1", "ip -6 neigh flush nud permanent dev flannel-v6.1",
		}},
		{name: "the FDB is emptied", do: func(t *testing.T, l *lab.Lab) {
			for _, dev := range []string{"flannel.1", "flannel-v6.1"} {
				for _, line := range strings.Split(onHost(t, l.Hosts[0], "bridge fdb show dev "+dev), "\n") {
					if fields := strings.Fields(line); len(fields) > 2 {
						onHost(t, l.Hosts[0], "bridge fdb del "+fields[0]+" dev "+dev+" "+strings.Join(fields[1:3], " "))
					}
				}
			}
		}},
		{name: "routes are flushed", commands: []string{"ip route flush dev flannel.1", "ip -6 route flush dev flannel-v6.1"}},
		{name: "routes are flushed by protocol", commands: []string{"ip route flush proto 70", "ip -6 route flush proto 70"}},
		{name: "the device is deleted", commands: []string{"ip link del flannel.1", "ip link del flannel-v6.1"}},
		{name: "the device is set down", commands: []string{"ip link set flannel.1 down", "ip link set flannel-v6.1 down"}},
		{name: "the device loses its address", commands: []string{"ip addr flush dev flannel.1", "ip -6 addr flush dev flannel-v6.1"}},
		{name: "the device gets another MAC", commands: []string{
			"ip link set flannel.1 address 02:00:00:00:00:98", "ip link set flannel-v6.1 address 02:00:00:00:00:98",
		}},
		{name: "the device gets another MTU", commands: []string{"ip link set flannel.1 mtu 1300", "ip link set flannel-v6.1 mtu 1300"}},
	}
}

func TestWhatVanishesIsPutBack(t *testing.T) {
	for _, o := range overlays() {
		t.Run(o.name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 3, Families: lab.Dual, Backend: o.backend})
			up(t, l)
			before := dataPath(t, l.Hosts[0])
			for _, f := range o.faults {
				t.Run(f.name, func(t *testing.T) { f.healed(t, l, before, o.asked) })
			}
		})
	}
}

// healed lets the fault happen and waits until all is as before; asked has the
// pods talk meanwhile.
func (f fault) healed(t *testing.T, l *lab.Lab, before string, asked bool) {
	start := time.Now()
	for _, command := range f.commands {
		onHost(t, l.Hosts[0], place(t, command, l.Hosts[1]))
	}
	if f.do != nil {
		f.do(t, l)
	}
	eventually.Says(t, func() (string, bool) {
		if asked {
			l.PingAll(t.Context())
		}
		now := dataPath(t, l.Hosts[0])
		return "before:\n" + before + "\nnow:\n" + now, now == before
	})
	connected(t, l)
	t.Logf("healed after %v", time.Since(start).Round(time.Millisecond))
}

func TestTheUplinkGetsAnotherAddress(t *testing.T) {
	tests := map[string]string{
		"vxlan": `{"Type": "vxlan"}`, "direct routing": `{"Type": "vxlan", "DirectRouting": true}`,
		"host-gw": `{"Type": "host-gw"}`, "udp": udpBackend, "on demand": onDemandBackend,
	}
	for name, backend := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 3, Families: lab.Dual, Backend: backend})
			up(t, l)
			h := l.Hosts[0]
			subnet := subnetOf(t, h)
			start := time.Now()
			readdress(t, h)
			reachedAt(t, l, h, subnet)
			t.Logf("healed after %v", time.Since(start).Round(time.Millisecond))
		})
	}
}

// readdress gives a host's uplink the addresses 172.31.1.200 and
// fd00:31:0:1::200 in place of its own.
func readdress(t *testing.T, h *lab.Host) {
	t.Helper()
	onHost(t, h, "ip addr del "+h.Addr(ipfam.V4).String()+"/24 dev eth0")
	onHost(t, h, "ip addr add 172.31.1.200/24 dev eth0")
	onHost(t, h, "ip addr del "+h.Addr(ipfam.V6).String()+"/64 dev eth0")
	onHost(t, h, "ip addr add fd00:31:0:1::200/64 dev eth0 nodad")
}

// reachedAt waits until the others know the new addresses, and checks that the
// host has kept its subnet.
func reachedAt(t *testing.T, l *lab.Lab, h *lab.Host, subnet ipfam.Pair[netip.Prefix]) {
	t.Helper()
	eventually.Says(t, func() (string, bool) {
		text := leases(t, l)[keyOf(t, h)]
		return text, strings.Contains(text, `"172.31.1.200"`) && strings.Contains(text, `"fd00:31:0:1::200"`)
	})
	connected(t, l)
	if got := subnetOf(t, h); got != subnet {
		t.Errorf("subnet %v, want %v as before", got, subnet)
	}
	if n := len(leases(t, l)); n != len(l.Hosts) {
		t.Errorf("%d leases: %v", n, leases(t, l))
	}
}
