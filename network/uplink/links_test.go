package uplink

import (
	"fmt"
	"net/netip"
	"testing"

	"flannel/backend"
	"flannel/kernel"

	"golang.org/x/sys/unix"
)

func viaLink(dst string, link int) route {
	return route{dst: netip.MustParsePrefix(dst), link: link, first: link, table: unix.RT_TABLE_MAIN, unicast: true}
}

func viaGateway(dst string, link int) route {
	r := viaLink(dst, link)
	r.gateway = true
	return r
}

func tableOf(index int, routes ...route) *linkTable {
	t := newLinkTable(index)
	for _, r := range routes {
		if r.link == index {
			t.addOnLink(r)
		}
	}
	for _, r := range routes {
		t.add(r)
	}
	return t
}

func linkText(links backend.Links) string {
	var out string
	for _, l := range links {
		out += fmt.Sprintf("%s %t;", l.Prefix, l.Direct)
	}
	return out
}

func TestLinks(t *testing.T) {
	ours := viaLink("10.0.0.0/25", 3)
	ours.protocol = kernel.RouteProtocol
	blackhole := route{dst: netip.MustParsePrefix("10.0.7.0/24"), table: unix.RT_TABLE_MAIN}
	other := viaLink("10.0.9.0/24", 3)
	other.table = 100
	cheap, dear := viaGateway("10.0.0.0/16", 3), viaLink("10.0.0.0/16", 2)
	dear.metric = 100
	tests := []struct {
		name   string
		routes []route
		want   string
	}{
		{"nothing", nil, ""},
		{"a default route by a gateway", []route{viaGateway("0.0.0.0/0", 2)}, ""},
		{"one link, both families", []route{viaLink("10.0.0.0/24", 2), viaLink("2001:db8::/64", 2), viaLink("fe80::/64", 2)},
			"2001:db8::/64 true;10.0.0.0/24 true;"},
		{"what lies elsewhere", []route{viaLink("10.0.0.0/16", 2), viaGateway("10.0.5.0/24", 2), viaLink("10.0.6.0/24", 3),
			blackhole, viaLink("192.168.0.0/24", 3)},
			"10.0.7.0/24 false;10.0.6.0/24 false;10.0.5.0/24 false;10.0.0.0/16 true;"},
		{"a link inside another network", []route{viaLink("10.0.0.0/16", 2), viaGateway("10.0.4.0/22", 2), viaLink("10.0.5.0/24", 2)},
			"10.0.5.0/24 true;10.0.4.0/22 false;10.0.0.0/16 true;"},
		{"what says the same twice", []route{viaLink("10.0.0.0/16", 2), viaLink("10.0.5.0/24", 2)}, "10.0.0.0/16 true;"},
		{"our own routes and other tables", []route{viaLink("10.0.0.0/16", 2), ours, other}, "10.0.0.0/16 true;"},
		{"the lower metric counts", []route{dear, cheap}, ""},
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
	ours.protocol = kernel.RouteProtocol
	tests := []struct {
		name string
		r    route
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

func FuzzParseRoute(f *testing.F) {
	f.Add([]byte{unix.AF_INET, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0, 8, 0, 1, 0, 10, 0, 0, 0, 8, 0, 4, 0, 2, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, ok := parseRoute(b); ok && !r.dst.IsValid() {
			t.Errorf("got %+v", r)
		}
		interest{table: newLinkTable(1)}.judge(b)
	})
}
