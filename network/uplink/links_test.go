package uplink

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"flannel/backend"
	"flannel/kernel"
	"flannel/kernel/rtnl"
)

func viaLink(dst string, dev int) rtnl.Route {
	return rtnl.Route{Dst: netip.MustParsePrefix(dst), Dev: dev, Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}
}

func viaGateway(dst string, dev int) rtnl.Route {
	r := viaLink(dst, dev)
	r.Gateway = r.Dst.Addr().Next()
	return r
}

func tableOf(index int, routes ...rtnl.Route) *linkTable {
	t := newLinkTable(index)
	for _, r := range routes {
		if r.Dev == index {
			t.addOnLink(r)
		}
	}
	for _, r := range routes {
		t.add(r)
	}
	return t
}

func linkText(links backend.OnLinkRoutes) string {
	var out string
	for _, l := range links {
		out += fmt.Sprintf("%s %t;", l.Prefix, l.Direct)
	}
	return out
}

func TestLinks(t *testing.T) {
	ours := viaLink("10.0.0.0/25", 3)
	ours.Protocol = kernel.RouteProtocol
	blackhole := rtnl.Route{Dst: netip.MustParsePrefix("10.0.7.0/24"), Table: unix.RT_TABLE_MAIN, Type: unix.RTN_BLACKHOLE}
	other := viaLink("10.0.9.0/24", 3)
	other.Table = 100
	cheap, dear := viaGateway("10.0.0.0/16", 3), viaLink("10.0.0.0/16", 2)
	dear.Metric = 100
	tests := []struct {
		name   string
		routes []rtnl.Route
		want   string
	}{
		{"nothing", nil, ""},
		{"a default route by a gateway", []rtnl.Route{viaGateway("0.0.0.0/0", 2)}, ""},
		{"one link, both families", []rtnl.Route{viaLink("10.0.0.0/24", 2), viaLink("2001:db8::/64", 2), viaLink("fe80::/64", 2)},
			"2001:db8::/64 true;10.0.0.0/24 true;"},
		{"what lies elsewhere", []rtnl.Route{viaLink("10.0.0.0/16", 2), viaGateway("10.0.5.0/24", 2), viaLink("10.0.6.0/24", 3),
			blackhole, viaLink("192.168.0.0/24", 3)},
			"10.0.7.0/24 false;10.0.6.0/24 false;10.0.5.0/24 false;10.0.0.0/16 true;"},
		{"a link inside another network", []rtnl.Route{viaLink("10.0.0.0/16", 2), viaGateway("10.0.4.0/22", 2), viaLink("10.0.5.0/24", 2)},
			"10.0.5.0/24 true;10.0.4.0/22 false;10.0.0.0/16 true;"},
		{"the same twice", []rtnl.Route{viaLink("10.0.0.0/16", 2), viaLink("10.0.5.0/24", 2)}, "10.0.0.0/16 true;"},
		{"our own routes and other tables", []rtnl.Route{viaLink("10.0.0.0/16", 2), ours, other}, "10.0.0.0/16 true;"},
		{"the lower metric counts", []rtnl.Route{dear, cheap}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := linkText(tableOf(2, test.routes...).links()); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestRelevantRoutes(t *testing.T) {
	table := tableOf(2, viaLink("10.0.0.0/16", 2), viaLink("10.0.6.0/24", 3))
	ours := viaGateway("10.0.8.0/24", 2)
	ours.Protocol = kernel.RouteProtocol
	tests := []struct {
		name string
		r    rtnl.Route
		want bool
	}{
		{"inside a link", viaGateway("10.0.7.0/24", 4), true},
		{"another link", viaLink("172.16.0.0/24", 2), true},
		{"ours", ours, false},
		{"elsewhere", viaLink("172.16.0.0/24", 3), false},
		{"a default route", viaGateway("0.0.0.0/0", 2), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := table.relevant(test.r); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
		})
	}
	if !table.elsewhere[3] || table.elsewhere[2] {
		t.Errorf("got %v, want only interface 3", table.elsewhere)
	}
}
