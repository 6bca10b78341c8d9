package doctor

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flannel/backend"
	"flannel/backend/vxlan"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/kernel/look"
	"flannel/network"
	"flannel/status"
)

// crowd are the facts of a node with this many peers, all of them reached.
func crowd(n int) *Facts {
	s := &network.Status{Network: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	f := &Facts{Backends: backend.Table{vxlan.Type}, Host: look.Host{Links: look.Links{{Index: 1, Name: "flannel.1", Kind: kernel.KindVXLAN}, {Index: 2, Name: "eth0"}}}}
	for i := range n {
		subnet := fmt.Sprintf("10.%d.%d.0/24", i/250, i%250)
		s.Peers = append(s.Peers, network.Peer{Name: fmt.Sprint("node", i), Subnet: subnet, How: "tunnel"})
		f.Lookups = append(f.Lookups, status.Lookup{
			Dst:   netip.MustParsePrefix(subnet).Addr().Next(),
			Route: look.Route{Dst: netip.MustParsePrefix(subnet), Dev: "flannel.1", Protocol: kernel.RouteProtocol, Table: unix.RT_TABLE_MAIN},
		})
	}
	f.Daemon.Status = s
	return f
}

func TestRoutesToManyPeers(t *testing.T) {
	f := crowd(5000)
	began := time.Now()
	if found := routes.Find(f); len(found) != 0 {
		t.Errorf("got %v", found)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
	f.Lookups[4999].Route.Dev = "eth0"
	found := routes.Find(f)
	if len(found) != 1 || !strings.HasPrefix(found[0].Problem, "packets for 10.19.249.0/24 (node4999) take a route of others") {
		t.Errorf("got %v", found)
	}
}

// TestRoutesThatMustStay looks at what is advised if packets take a route that nobody
// should delete.
func TestRoutesThatMustStay(t *testing.T) {
	eth1 := kernel.HostAddr{Addr: netip.MustParsePrefix("10.0.1.9/25"), Dev: "eth1"}
	for _, tt := range []struct {
		name          string
		route         look.Route
		err           error
		says, command string
	}{
		{
			"the network of an interface", look.Route{Dst: eth1.Addr.Masked(), Dev: "eth1", Protocol: unix.RTPROT_KERNEL, Table: unix.RT_TABLE_MAIN}, nil,
			"packets for 10.0.1.0/24 (node1) go to eth1: its address 10.0.1.9/25 overlaps the overlay network 10.0.0.0/8", "ip address show dev eth1; ",
		},
		{
			"the default route", look.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.254"), Dev: "eth0", Protocol: unix.RTPROT_STATIC, Table: unix.RT_TABLE_MAIN}, nil,
			"flanneld's route to 10.0.1.0/24 (node1) is missing: packets take 0.0.0.0/0 via 192.0.2.254 dev eth0 proto static", status.Logs,
		},
		{
			"a VPN's table", look.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Dev: "eth1", Protocol: unix.RTPROT_STATIC, Table: 220}, nil,
			"packets for 10.0.1.0/24 (node1) take a route of others: 0.0.0.0/0 dev eth1 table 220 proto static", "ip rule add to 10.0.0.0/8 lookup main pref 219",
		},
		{
			"a VPN's table of which the rule is not known", look.Route{Dst: netip.MustParsePrefix("10.0.0.0/9"), Dev: "eth1", Table: 52}, nil,
			"packets for 10.0.1.0/24 (node1) take a route of others: 10.0.0.0/9 dev eth1 table 52", "ip rule add to 10.0.0.0/8 lookup main pref N, with N below the preference that this shows: ip rule show table 52",
		},
		{
			"a narrow route in a table", look.Route{Dst: netip.MustParsePrefix("10.0.1.0/24"), Dev: "eth1", Table: 220}, nil,
			"packets for 10.0.1.0/24 (node1) take a route of others: 10.0.1.0/24 dev eth1 table 220", "ip route del 10.0.1.0/24 dev eth1 table 220; or delete the rule",
		},
		{
			"an address of this host", look.Route{Type: "local", Dst: netip.MustParsePrefix("10.0.1.9/32"), Dev: "eth1", Protocol: unix.RTPROT_KERNEL, Table: unix.RT_TABLE_LOCAL}, nil,
			"packets for 10.0.1.0/24 (node1) go to eth1: its address 10.0.1.9/25 overlaps the overlay network 10.0.0.0/8", "ip address show dev eth1; ",
		},
		{
			"a drop of all private addresses", look.Route{}, unix.EHOSTUNREACH,
			"flanneld's route to 10.0.1.0/24 (node1) is missing: packets take unreachable 10.0.0.0/8", status.Logs,
		},
		{
			"a drop of a peer's addresses", look.Route{}, unix.EACCES,
			"packets for 10.0.1.0/24 (node1) are dropped by a route: prohibit 10.0.1.0/25", "ip route del prohibit 10.0.1.0/25",
		},
	} {
		f := crowd(3)
		f.Host.Links, f.Host.Addrs = append(f.Host.Links, kernel.Link{Index: 3, Name: "eth1", Up: true}), []kernel.HostAddr{eth1}
		f.Host.Routes = []look.Route{
			{Type: "prohibit", Dst: netip.MustParsePrefix("10.0.0.0/9")}, {Type: "prohibit", Dst: netip.MustParsePrefix("10.0.1.0/25")}, {Type: "unreachable", Dst: netip.MustParsePrefix("10.0.0.0/8")},
		}
		f.Host.Rules = []look.Rule{{Priority: 32765, Table: 220}, {Priority: 220, Table: 220}, {Family: ipfam.V6, Priority: 100, Table: 220}}
		f.Lookups[1].Route, f.Lookups[1].Err = tt.route, tt.err
		found := routes.Find(f)
		if len(found) != 1 || found[0].Problem != tt.says || !strings.HasPrefix(found[0].Command, tt.command) {
			t.Errorf("%s: got %+v", tt.name, found)
		}
	}
}
