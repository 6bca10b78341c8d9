package vxlan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"flannel/backend"
	"flannel/backend/backendtest"
	"flannel/internal/ipfam"
	"flannel/internal/testkit/golden"
	"flannel/kernel"
	"flannel/subnet"
)

func mac(s string) kernel.MAC {
	m, err := kernel.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func environment(v4, v6 bool) backend.Env {
	env := backendtest.Env(v4, v6)
	env.Previous = subnet.Attrs{BackendType: typeName, Data: ipfam.Pair[string]{
		data{1, mac("02:00:00:00:00:01")}.encode(), data{1, mac("02:00:00:00:06:01")}.encode(),
	}}
	return env
}

var up = backend.Uplink{
	Name: "eth0", Index: 7, MTU: 1500,
	Addr:   ipfam.Pair[netip.Addr]{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
	Public: ipfam.Pair[netip.Addr]{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
}

// node returns the lease of node n in both families.
func node(n int) subnet.Lease {
	l := subnet.Lease{Name: fmt.Sprintf("node%d", n), Precedence: subnet.Precedence{Age: int64(n)}}
	l.Subnet = ipfam.Pair[netip.Prefix]{
		netip.MustParsePrefix(fmt.Sprintf("10.5.%d.0/24", n)), netip.MustParsePrefix(fmt.Sprintf("fc00:0:0:%d::/64", n)),
	}
	l.Attrs = subnet.Attrs{
		BackendType: typeName,
		PublicIP:    ipfam.Pair[netip.Addr]{netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", n)), netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", n))},
		Data: ipfam.Pair[string]{
			data{1, mac(fmt.Sprintf("02:00:00:00:00:%02d", n))}.encode(), data{1, mac(fmt.Sprintf("02:00:00:00:06:%02d", n))}.encode(),
		},
	}
	return l
}

func with(l subnet.Lease, change func(*subnet.Lease)) subnet.Lease {
	change(&l)
	return l
}

func TestPlan(t *testing.T) {
	routes := backend.OnLinkRoutes{
		{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Direct: true},
		{Prefix: netip.MustParsePrefix("192.0.2.3/32"), Direct: false},
	}
	change := func(n int, text string) subnet.Lease {
		return with(node(n), func(l *subnet.Lease) { l.Attrs.Data[ipfam.V4] = text })
	}
	tests := []struct {
		name, options string
		v6            bool
		peers         []subnet.Lease
	}{
		{"two_peers", `{"Type":"vxlan"}`, false, []subnet.Lease{node(2), node(3)}},
		{"dual_stack", `{"Type":"vxlan"}`, true, []subnet.Lease{
			node(2),
			with(node(3), func(l *subnet.Lease) { l.Attrs.PublicIP[ipfam.V6] = netip.Addr{} }),
			with(node(4), func(l *subnet.Lease) { l.Subnet[ipfam.V6] = netip.Prefix{} }),
		}},
		{"direct_routing", `{"DirectRouting":true}`, false, []subnet.Lease{node(2), node(3), with(node(4), func(l *subnet.Lease) {
			l.Attrs.PublicIP[ipfam.V4] = netip.MustParseAddr("198.51.100.4")
		})}},
		{"on_demand", `{"OnDemand":true,"DirectRouting":true}`, true, []subnet.Lease{node(2), with(node(4), func(l *subnet.Lease) {
			l.Attrs.PublicIP[ipfam.V4] = netip.MustParseAddr("198.51.100.4")
		})}},
		{"on_demand_twice", `{"OnDemand":true}`, false, []subnet.Lease{node(2), node(3), with(node(3), func(l *subnet.Lease) {
			l.Name, l.Precedence.Grace, l.Subnet = "node3 before", true, node(4).Subnet
		})}},
		{"every_key", `{"VNI":1,"Port":4789,"MTU":1400,"GBP":true,"Learning":true,"ChecksumOffload":false}`, false, nil},
		{"wrong_peers", `{}`, false, []subnet.Lease{
			node(2),
			change(3, `{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}`),
			change(4, `{"VNI":1,"VtepMAC":"ff:ff:ff:ff:ff:ff"}`),
			change(5, `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`),
			change(6, `{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}`),
			change(7, `{"VNI":2,"VtepMAC":"02:00:00:00:00:07"}`),
			change(8, `{"VNI":1,`),
			change(9, `null`),
			with(node(10), func(l *subnet.Lease) { l.Attrs.BackendType = "host-gw" }),
			with(node(11), func(l *subnet.Lease) { l.Attrs.PublicIP[ipfam.V4] = netip.Addr{} }),
			change(12, ` {"VNI":1,"VtepMAC":"02:00:00:00:00:12"}`),
			change(13, `{"vtepmac": "02-00-00-00-00-13"}`),
			// An older record that cannot be used keeps nobody from its MAC.
			with(change(14, `{"VNI":2,"VtepMAC":"02:00:00:00:00:15"}`), func(l *subnet.Lease) { l.Precedence.Age = 0 }),
			node(15),
			// A record that is kept for a node that has another one.
			with(node(15), func(l *subnet.Lease) {
				l.Name, l.Precedence.Grace, l.Subnet = "node15 before", true, node(16).Subnet
			}),
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := backendtest.New(t, Type, tt.options, environment(true, tt.v6))
			state, peers, err := b.Plan(node(1), tt.peers, backend.Host{Uplink: up, OnLinkRoutes: routes})
			if err != nil {
				t.Fatal(err)
			}
			golden.Equal(t, backendtest.Text(state, peers), "testdata/"+tt.name+".txt")
		})
	}
}

// TestANodeThatHasAllOfTheNetwork leaves the route to it to the bridge.
func TestANodeThatHasAllOfTheNetwork(t *testing.T) {
	env := backendtest.Env(true, true)
	own := node(1)
	own.Subnet = env.Network
	state, _, err := backendtest.New(t, Type, `{"OnDemand":true}`, env).Plan(own, nil, backendtest.Host())
	if err != nil || len(state.Routes) > 0 || len(state.CatchAllRoutes) > 0 {
		t.Errorf("routes %v, catches %v, %v", state.Routes, state.CatchAllRoutes, err)
	}
}

func TestAttrsAreByteForByteWhatOthersRead(t *testing.T) {
	b := backendtest.New(t, Type, `{"VNI":5}`, environment(true, true))
	a := b.Attrs(up)
	if got, want := a.Data[ipfam.V4], `{"VNI":5,"VtepMAC":"02:00:00:00:00:01"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := a.Data[ipfam.V6], `{"VNI":5,"VtepMAC":"02:00:00:00:06:01"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := b.MTU(up), 1430; got != want {
		t.Errorf("MTU %d, want %d", got, want)
	}
}

func TestTheMACIsChosenOnce(t *testing.T) {
	device, published := mac("02:00:00:00:00:aa"), mac("02:00:00:00:00:01")
	env := environment(true, false)
	env.DeviceMAC = func(string) kernel.MAC { return device }
	chosen := func() kernel.MAC {
		return backendtest.New(t, Type, `{}`, env).(*vxlan).mac[ipfam.V4]
	}
	if got := chosen(); got != published {
		t.Errorf("got %s, want the published %s", got, published)
	}
	env.Previous = subnet.Attrs{}
	if got := chosen(); got != device {
		t.Errorf("got %s, want the device's %s", got, device)
	}
	env.DeviceMAC = func(string) kernel.MAC { return kernel.MAC{} }
	if got := chosen(); !got.IsUnicast() || got[0]&2 == 0 || got == chosen() {
		t.Errorf("got %s, want a random local address", got)
	}
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	tests := map[string]string{
		`{"VNI":0}`:               "VNI: 0 is not allowed: use a whole number from 1 to 16777215",
		`{"VNI":12345}`:           "flannel-v6.12345",
		`{"Port":70000}`:          "Port: 70000",
		`{"MTU":"big"}`:           `MTU: "big"`,
		`{"DirectRouting":"yes"}`: "use true or false",
	}
	for object, want := range tests {
		_, _, err := Type.Parse([]byte(object), ipfam.Pair[bool]{true, true})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", object, err, want)
		}
	}
}

func TestAnMTULargerThanTheUplinksIsCutToIt(t *testing.T) {
	b := backendtest.New(t, Type, `{"MTU":9000}`, environment(true, false))
	if got, want := b.MTU(up), 1450; got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

func TestAnMTUTooSmallForIPv6IsAnError(t *testing.T) {
	b := backendtest.New(t, Type, `{"MTU":1300}`, environment(true, true))
	if _, _, err := b.Plan(node(1), nil, backend.Host{Uplink: up}); err == nil {
		t.Error("no error")
	}
}

func BenchmarkPlan(b *testing.B) {
	peers := make([]subnet.Lease, 5000)
	for i := range peers {
		l := node(2)
		l.Name = fmt.Sprint(i)
		l.Subnet[ipfam.V4] = netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255))
		l.Attrs.PublicIP[ipfam.V4] = netip.MustParseAddr(fmt.Sprintf("172.16.%d.%d", i>>8, i&255))
		l.Attrs.Data[ipfam.V4] = data{1, kernel.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}}.encode()
		peers[i] = l
	}
	p := backendtest.New(b, Type, `{}`, environment(true, false))
	for b.Loop() {
		p.Plan(node(1), peers, backend.Host{Uplink: up})
	}
}
