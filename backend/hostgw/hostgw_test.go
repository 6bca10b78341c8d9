package hostgw

import (
	"net/netip"
	"strings"
	"testing"

	"flannel/backend"
	"flannel/backend/backendtest"
	"flannel/internal/ipfam"
	"flannel/internal/testkit/golden"
	"flannel/subnet"
)

func public(f ipfam.Family, a string) func(*subnet.Lease) {
	return func(l *subnet.Lease) {
		l.Attrs.PublicIP[f] = netip.Addr{}
		if a != "" {
			l.Attrs.PublicIP[f] = netip.MustParseAddr(a)
		}
	}
}

func node(n int, changes ...func(*subnet.Lease)) subnet.Lease {
	return backendtest.Node(typeName, n, changes...)
}

func TestPlan(t *testing.T) {
	tests := []struct {
		name   string
		v4, v6 bool
		peers  []subnet.Lease
		routes backend.OnLinkRoutes
	}{
		{name: "ipv4", v4: true, peers: []subnet.Lease{node(2), node(3)}},
		{name: "ipv6", v6: true, peers: []subnet.Lease{node(2), node(3, public(ipfam.V6, "fe80::3"))}},
		{name: "dual_stack", v4: true, v6: true, peers: []subnet.Lease{
			node(2),
			node(3, public(ipfam.V6, "")),
			node(4, func(l *subnet.Lease) { l.Subnet[ipfam.V6] = netip.Prefix{} }),
		}},
		{name: "another_link", v4: true, v6: true, peers: []subnet.Lease{
			node(2), node(3, public(ipfam.V4, "198.51.100.3"), public(ipfam.V6, "2001:db8:1::3")), node(4),
		}, routes: append(backendtest.Host().OnLinkRoutes, backend.OnLinkRoute{Prefix: netip.MustParsePrefix("192.0.2.4/32")})},
		{name: "another_backend", v4: true, peers: []subnet.Lease{backendtest.Node("vxlan", 2), node(3)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			host := backendtest.Host()
			if tt.routes != nil {
				host.OnLinkRoutes = tt.routes
			}
			b := backendtest.New(t, Type, `{"Type":"host-gw"}`, backendtest.Env(tt.v4, tt.v6))
			state, peers, err := b.Plan(node(1), tt.peers, host)
			if err != nil {
				t.Fatal(err)
			}
			golden.Equal(t, backendtest.Text(state, peers), "testdata/"+tt.name+".txt")
		})
	}
}

func TestAPublicAddressThatIsNotTheInterfacesIsRefused(t *testing.T) {
	needs := backendtest.Config(t, Type, `{}`, ipfam.Pair[bool]{true}).Needs()
	up := backendtest.Uplink()
	up.Public[ipfam.V4] = netip.MustParseAddr("203.0.113.9")
	want := "public ipv4 address 203.0.113.9 is not the address 192.0.2.1 of eth0"
	if err := needs.CheckUplink(up); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestAnUplinkTooSmallForIPv6IsAnError(t *testing.T) {
	up := backendtest.Uplink()
	up.MTU = 1279
	if backendtest.Config(t, Type, `{}`, ipfam.Pair[bool]{true, true}).Needs().CheckUplink(up) == nil {
		t.Error("no error")
	}
}

func TestAttrsHaveNoData(t *testing.T) {
	b := backendtest.New(t, Type, `{}`, backendtest.Env(true, false))
	a := b.Attrs(backendtest.Uplink())
	want := subnet.Attrs{BackendType: "host-gw", PublicIP: ipfam.Pair[netip.Addr]{netip.MustParseAddr("192.0.2.1")}}
	if a != want {
		t.Errorf("got %+v, want %+v", a, want)
	}
}
