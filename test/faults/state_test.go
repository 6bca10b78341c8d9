package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel"
)

func TestARouteIsToldByItsMetric(t *testing.T) {
	subnet, err := netlink.ParseIPNet("10.244.1.0/24")
	if err != nil {
		t.Fatal(err)
	}
	direct := netlink.Route{Dst: subnet, Priority: 7, Protocol: kernel.RouteProtocol, Table: unix.RT_TABLE_MAIN}
	via := direct
	via.Gw = netip.MustParseAddr("172.31.1.12").AsSlice()
	foreign := direct
	foreign.Protocol, foreign.Table = unix.RTPROT_STATIC, 100
	for want, r := range map[string]netlink.Route{
		"route 10.244.1.0/24 dev eth0 metric 7 proto static table 100": foreign,
		"route 10.244.1.0/24 dev eth0 metric 7":                        direct,
		"route 10.244.1.0/24 via 172.31.1.12 dev eth0 metric 7":        via,
	} {
		if got := describe(&r, "eth0"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestMetricsOfRoutesToPeers(t *testing.T) {
	for subnet, want := range map[string]int{
		"10.244.17.0/24": 18, "10.244.255.0/24": 256, "10.244.205.4/30": 66, "fd00:10:244:1::/64": 1024,
	} {
		if got := peerMetric(netip.MustParsePrefix(subnet)); got != want {
			t.Errorf("%s: got %d, want %d", subnet, got, want)
		}
	}
}

func TestAHostUsesTheRecordsOfOthers(t *testing.T) {
	v4 := func(n string, except int) record {
		return record{use: use{except: except},
			subnet: ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.244." + n + ".0/24")},
			public: ipfam.Pair[netip.Addr]{netip.MustParseAddr("172.31.1." + n)},
		}
	}
	left := v4("14", nobody)
	left.use.without[ipfam.V4] = true
	all := []record{v4("10", 0), v4("11", 1), v4("12", nobody), v4("13", 1), left}
	for own, want := range []string{"11 12 13", "10 12"} {
		var got []string
		for line := range strings.Lines(wanted(hostgw, &netlink.LinkAttrs{MTU: 1500}, own, all)) {
			if _, rest, found := strings.Cut(line, "via 172.31.1."); found {
				got = append(got, rest[:2])
			}
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("host %d uses %s, want %s", own, got, want)
		}
	}
}
