package udp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"flannel/backend/backendtest"
	"flannel/backend/udp/packet"
	"flannel/internal/ipfam"
	"flannel/internal/testkit/golden"
	"flannel/subnet"
)

func node(n int, changes ...func(*subnet.Lease)) subnet.Lease {
	return backendtest.Node(typeName, n, changes...)
}

func TestPlan(t *testing.T) {
	peers := []subnet.Lease{
		node(2), node(3, func(l *subnet.Lease) { l.Attrs.PublicIP[ipfam.V6] = netip.Addr{} }),
		node(4, func(l *subnet.Lease) { l.Subnet[ipfam.V6] = netip.Prefix{} }),
		backendtest.Node("vxlan", 5),
	}
	for name, on := range map[string][2]bool{"ipv4": {true, false}, "ipv6": {false, true}, "dual_stack": {true, true}} {
		t.Run(name, func(t *testing.T) {
			b := backendtest.New(t, Type, `{"Type":"udp"}`, backendtest.Env(on[0], on[1]))
			state, status, err := b.Plan(node(1), peers, backendtest.Host())
			if err != nil {
				t.Fatal(err)
			}
			golden.Equal(t, backendtest.Text(state, status), "testdata/"+name+".txt")
		})
	}
}

// TestANodeThatHasAllOfTheNetwork leaves the route to it to the bridge.
func TestANodeThatHasAllOfTheNetwork(t *testing.T) {
	env := backendtest.Env(true, true)
	own := node(1)
	own.Subnet = env.Network
	state, _, err := backendtest.New(t, Type, `{}`, env).Plan(own, nil, backendtest.Host())
	if err != nil || len(state.Routes) > 0 {
		t.Errorf("routes %v, %v", state.Routes, err)
	}
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	tests := map[string]string{
		`{"Port":0}`:               "Port: 0 is not allowed: use a whole number from 1 to 65535",
		`{"Port":"x"}`:             `Port: "x"`,
		`{"KnownSourcesOnly":"y"}`: "use true or false",
		`{"StrictSources":1}`:      "StrictSources: 1",
	}
	for object, want := range tests {
		_, _, err := Type.Parse([]byte(object), ipfam.Pair[bool]{true, true})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", object, err, want)
		}
	}
	c, warnings, err := Type.Parse([]byte(`{"type":"udp","prot":1}`), ipfam.Pair[bool]{true})
	if err != nil || c.(Config).Port != 8285 || len(warnings) != 1 {
		t.Errorf("got %+v, %v, %v", c, warnings, err)
	}
}

func TestAnUplinkTooSmallForIPv6IsAnError(t *testing.T) {
	b := backendtest.New(t, Type, `{}`, backendtest.Env(true, true))
	view := backendtest.Host()
	view.Uplink.MTU = 1327
	if _, _, err := b.Plan(node(1), nil, view); err == nil {
		t.Error("no error")
	}
}

// to is a packet to an address; only what the table looks at is filled in.
func to(a string) packet.Packet {
	dst := netip.MustParseAddr(a)
	if dst.Is4() {
		p := make(packet.Packet, 20)
		p[0] = 0x45
		copy(p[16:], dst.AsSlice())
		return p
	}
	p := make(packet.Packet, 40)
	p[0] = 0x60
	copy(p[24:], dst.AsSlice())
	return p
}

func tableOf(old *table, peers ...subnet.Lease) *table {
	return newTable(backendtest.Env(true, true), 8285, node(1), peers, backendtest.Uplink(), old)
}

func TestTableFindsTheMostSpecificPeer(t *testing.T) {
	subnets := func(v4, v6 string) func(*subnet.Lease) {
		return func(l *subnet.Lease) {
			l.Subnet = ipfam.Pair[netip.Prefix]{netip.MustParsePrefix(v4), netip.MustParsePrefix(v6)}
		}
	}
	table := tableOf(nil, node(2), node(3, subnets("10.5.128.0/17", "fc00:0:0:8000::/49")),
		node(4, subnets("10.5.200.16/28", "fc00:0:0:c000::ff00/120")), backendtest.Node("vxlan", 6),
		node(7, func(l *subnet.Lease) { l.Attrs.PublicIP[ipfam.V6] = netip.Addr{} }))
	tests := map[string]string{
		"10.5.2.0": "192.0.2.2", "10.5.2.255": "192.0.2.2", "10.5.1.9": "", "10.5.6.1": "", "10.6.2.1": "",
		"10.5.200.15": "192.0.2.3", "10.5.200.16": "192.0.2.4", "10.5.200.31": "192.0.2.4", "10.5.200.32": "192.0.2.3",
		"10.5.7.1": "192.0.2.7", "fc00:0:0:7::1": "", "fc00:0:0:2::1": "2001:db8::2",
		"fc00:0:0:c000::1": "2001:db8::3", "fc00:0:0:c000::ff01": "2001:db8::4", "fd00::1": "",
	}
	for dst, want := range tests {
		got := ""
		if p := table.find(to(dst)); p != nil {
			got = p.path.addr.String()
			if a := p.to.AddrPort(); a != netip.AddrPortFrom(p.path.addr, 8285) {
				t.Errorf("%s goes to %s", dst, a)
			}
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", dst, got, want)
		}
	}
}

func TestTableKnowsSourcesAndMarks(t *testing.T) {
	same := func(l *subnet.Lease) { l.Attrs.PublicIP[ipfam.V4] = netip.MustParseAddr("192.0.2.9") }
	table := tableOf(nil, node(2, same), node(3, same, func(l *subnet.Lease) { l.Attrs.Untyped = true }))
	if got := len(table.endpoints[netip.MustParseAddr("192.0.2.9")].subnets); got != 2 {
		t.Errorf("%d subnets behind one address, want 2", got)
	}
	if !table.find(to("10.5.2.1")).ecn || table.find(to("10.5.3.1")).ecn {
		t.Error("ECN is for nodes that name their backend, and not for flannel's")
	}
}

func TestWhatIsKnownOfAPathOutlivesTheTable(t *testing.T) {
	now := time.Unix(1000, 0)
	first := tableOf(nil, node(2))
	first.find(to("10.5.2.1")).path.learn(1372, now)
	second := tableOf(first, node(2), node(3))
	path := second.find(to("10.5.2.1")).path
	if got := path.limit(now.Add(time.Second)); got != 1372 {
		t.Errorf("limit %d, want 1372", got)
	}
	if got := path.limit(now.Add(pathMTULife + 1)); got != 0 {
		t.Errorf("limit %d long after", got)
	}
	if got := second.find(to("10.5.3.1")).path.limit(now); got != 0 {
		t.Errorf("limit %d of another path", got)
	}
}

func TestFindAllocatesNothing(t *testing.T) {
	var peers []subnet.Lease
	for n := 2; n < 200; n++ {
		peers = append(peers, node(n))
	}
	table := tableOf(nil, peers...)
	v4, v6 := to("10.5.77.1"), to("fc00:0:0:77::1")
	if n := testing.AllocsPerRun(10, func() {
		if table.find(v4) == nil || table.find(v6) == nil {
			t.Error("not found")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestControlMessages(t *testing.T) {
	for _, f := range ipfam.All() {
		var c control
		sent := c.outgoing(f, 0xba, 1400)
		if tos, _ := incoming(sent); tos != 0xba {
			t.Errorf("%s: TOS %x of %x", f, tos, sent)
		}
		if len(c.outgoing(f, 0, 0)) != 0 {
			t.Error("something to say about nothing")
		}
	}
}

func BenchmarkFind(b *testing.B) {
	var peers []subnet.Lease
	for n := range 5000 {
		peers = append(peers, node(2, func(l *subnet.Lease) {
			l.Subnet[ipfam.V4] = netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", n>>8, n&255))
		}))
	}
	table, p := tableOf(nil, peers...), to("10.5.77.1")
	for b.Loop() {
		table.find(p)
	}
}

func BenchmarkTableOf5000(b *testing.B) {
	var peers []subnet.Lease
	for n := range 5000 {
		peers = append(peers, node(2, func(l *subnet.Lease) {
			l.Subnet[ipfam.V4] = netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", n>>8, n&255))
			l.Attrs.PublicIP[ipfam.V4] = netip.AddrFrom4([4]byte{100, 64, byte(n >> 8), byte(n)})
		}))
	}
	for b.Loop() {
		tableOf(nil, peers...)
	}
}
