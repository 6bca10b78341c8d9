package podbridge

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/nstest"
)

func readdress() ([]netip.Prefix, error) {
	return Readdress("cni0",
		ipfam.Pair[[]netip.Prefix]{{netip.MustParsePrefix("10.244.0.0/16")}, {netip.MustParsePrefix("fd00:10:244::/56")}},
		ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.244.99.1/24"), netip.MustParsePrefix("fd00:10:244:9::1/64")})
}

func TestReaddress(t *testing.T) {
	tests := []struct {
		name         string
		have         []string
		port         bool
		former, want string
	}{
		{"the present address", []string{"10.244.99.1/24"}, false, "[]", "10.244.99.1/24"},
		{"a former address", []string{"10.244.17.1/24"}, false, "[]", "10.244.99.1/24"},
		{"both families", []string{"10.244.17.1/24", "fd00:10:244:3::1/64"}, false, "[]", "10.244.99.1/24 fd00:10:244:9::1/64"},
		{"both addresses", []string{"10.244.17.1/24", "10.244.99.1/24"}, false, "[]", "10.244.99.1/24"},
		{"another length", []string{"10.244.99.1/25"}, false, "[]", "10.244.99.1/24"},
		{"an address of the user", []string{"192.0.2.1/24", "10.244.17.1/24"}, false, "[]", "192.0.2.1/24 10.244.99.1/24"},
		{"no address", nil, false, "[]", ""},
		{"ports", []string{"10.244.17.1/24", "192.0.2.1/24"}, true, "[10.244.17.1/24]", "10.244.17.1/24 192.0.2.1/24"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ns := nstest.New(t)
			ns.AddBridge("cni0", test.have...)
			ns.AddVeth("a", "b")
			if test.port {
				ns.IP("link set dev a master cni0")
			}
			var former []netip.Prefix
			var err error
			ns.Do(func() { former, err = readdress() })
			if err != nil || fmt.Sprint(former) != test.former {
				t.Errorf("got %v, %v, want %s", former, err, test.former)
			}
			if got := addresses(ns); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestReaddressWithoutBridge(t *testing.T) {
	ns := nstest.New(t)
	ns.AddVeth("a", "b")
	ns.Do(func() {
		if former, err := readdress(); err != nil || former != nil {
			t.Errorf("got %v, %v, want nothing", former, err)
		}
	})
}

// addresses lists what cni0 has, apart from what the kernel gives it.
func addresses(ns *nstest.NS) string {
	var list []string
	for line := range strings.Lines(ns.IP("-o addr show dev cni0")) {
		if a := strings.Fields(line)[3]; !strings.HasPrefix(a, "fe80:") {
			list = append(list, a)
		}
	}
	return strings.Join(list, " ")
}
