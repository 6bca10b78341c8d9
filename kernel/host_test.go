package kernel_test

import (
	"net/netip"
	"slices"
	"testing"

	"flannel/kernel"
)

func TestHost(t *testing.T) {
	n := newNode(t)
	n.AddBridge("cni0", "10.5.1.1/24")
	n.IP("route add default via 192.0.2.254")
	n.IP("route add default metric 9 nexthop via 192.0.2.252 nexthop via 192.0.2.253")
	n.IP("-6 route add default via 2001:db8::fe metric 7")
	n.IP("-6 route add default metric 9 nexthop via 2001:db8::fc nexthop via 2001:db8::fd")
	host, err := n.Host(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []kernel.HostAddr{
		{Addr: netip.MustParsePrefix("192.0.2.1/24"), Dev: "eth0"},
		{Addr: netip.MustParsePrefix("2001:db8::1/64"), Dev: "eth0"},
		{Addr: netip.MustParsePrefix("10.5.1.1/24"), Dev: "cni0"},
		{Addr: netip.MustParsePrefix("127.0.0.1/8"), Dev: "lo"},
	} {
		if !slices.Contains(host.Addrs, want) {
			t.Errorf("got %v, want %v in it", host.Addrs, want)
		}
	}
	for _, want := range []string{
		"192.0.2.252", "192.0.2.253", "192.0.2.254", "2001:db8::fc", "2001:db8::fd", "2001:db8::fe",
	} {
		if !slices.Contains(host.Gateways, netip.MustParseAddr(want)) {
			t.Errorf("got gateways %v, want %s in it", host.Gateways, want)
		}
	}
}
