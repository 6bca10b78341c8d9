package subnet_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// lease returns an IPv4 lease of a vxlan node; age orders claims.
func lease(name, prefix, public string, age int64) subnet.Lease {
	l := subnet.Lease{Name: name, Claim: subnet.Claim{Age: age, Name: name}}
	l.Subnet[ipfam.V4] = netip.MustParsePrefix(prefix)
	l.Attrs.BackendType = "vxlan"
	if public != "" {
		l.Attrs.PublicIP[ipfam.V4] = netip.MustParseAddr(public)
	}
	return l
}

func with(l subnet.Lease, change func(*subnet.Lease)) subnet.Lease {
	change(&l)
	return l
}

func pointers(leases ...subnet.Lease) []*subnet.Lease {
	var all []*subnet.Lease
	for i := range leases {
		all = append(all, &leases[i])
	}
	return all
}

func TestVetLeavesOnlyTheWrongOnesOut(t *testing.T) {
	network := ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.5.0.0/16")}
	own := lease("own", "10.5.1.0/24", "192.0.2.1", 5)
	good := lease("good", "10.5.2.0/24", "192.0.2.2", 6)
	grace := func(l *subnet.Lease) { l.Claim.Grace = true }
	udp := func(l *subnet.Lease) { l.Attrs.BackendType = "udp" }
	tests := map[string]struct {
		leases []subnet.Lease
		want   map[string]string // refused name: part of the reason
	}{
		"nothing wrong":      {[]subnet.Lease{own, good}, nil},
		"not decoded":        {[]subnet.Lease{own, good, {Name: "x", Invalid: "value: bad JSON"}}, map[string]string{"x": "bad JSON"}},
		"outside Network":    {[]subnet.Lease{own, good, lease("x", "10.6.1.0/24", "192.0.2.3", 1)}, map[string]string{"x": "outside the network 10.5.0.0/16"}},
		"the whole Network":  {[]subnet.Lease{own, good, lease("x", "10.5.0.0/16", "192.0.2.3", 1)}, map[string]string{"x": "outside the network"}},
		"inside our subnet":  {[]subnet.Lease{own, good, lease("x", "10.5.1.128/25", "192.0.2.3", 1)}, map[string]string{"x": "overlaps this node's 10.5.1.0/24"}},
		"around our subnet":  {[]subnet.Lease{own, good, lease("x", "10.5.0.0/20", "192.0.2.3", 1)}, map[string]string{"x": "overlaps this node's"}},
		"our public address": {[]subnet.Lease{own, good, lease("x", "10.5.3.0/24", "192.0.2.1", 1)}, map[string]string{"x": "192.0.2.1 is this node's"}},
		"no public address":  {[]subnet.Lease{own, good, lease("x", "10.5.3.0/24", "", 1)}, map[string]string{"x": "no public address"}},
		"loopback":           {[]subnet.Lease{own, good, lease("x", "10.5.3.0/24", "127.0.0.1", 1)}, map[string]string{"x": "cannot be a host's"}},
		"multicast":          {[]subnet.Lease{own, good, lease("x", "10.5.3.0/24", "224.0.0.1", 1)}, map[string]string{"x": "cannot be a host's"}},
		"younger overlap":    {[]subnet.Lease{own, good, lease("x", "10.5.2.128/25", "192.0.2.3", 9)}, map[string]string{"x": "of the older claim good"}},
		"older overlap":      {[]subnet.Lease{own, good, lease("x", "10.5.2.0/23", "192.0.2.3", 1)}, map[string]string{"good": "of the older claim x"}},
		"same age, by name":  {[]subnet.Lease{own, good, lease("a", "10.5.2.0/25", "192.0.2.3", 6)}, map[string]string{"good": "of the older claim a"}},
		"live beats grace":   {[]subnet.Lease{own, with(good, grace), lease("x", "10.5.2.0/25", "192.0.2.3", 9)}, map[string]string{"good": "of the older claim x"}},
		"same address":       {[]subnet.Lease{own, good, lease("x", "10.5.3.0/24", "192.0.2.2", 9)}, map[string]string{"x": "belongs to the older claim good"}},
		"shared address, udp": {[]subnet.Lease{
			own, with(good, udp), with(lease("x", "10.5.3.0/24", "192.0.2.2", 9), udp), with(lease("y", "10.5.4.0/24", "192.0.2.1", 9), udp),
		}, nil},
		"one node, an older record restored": {[]subnet.Lease{
			own, good, with(lease("x", "10.5.3.0/24", "192.0.2.2", 9), grace),
		}, nil},
		"one overlaps many": {[]subnet.Lease{
			own, good, lease("b", "10.5.3.0/24", "192.0.2.3", 7), lease("x", "10.5.2.0/23", "192.0.2.4", 9),
		}, map[string]string{"x": "older claim"}},
		"only a family that is off": {[]subnet.Lease{own, good, {
			Name: "x", Subnet: ipfam.Pair[netip.Prefix]{ipfam.V6: netip.MustParsePrefix("fc00::/64")},
		}}, map[string]string{"x": "no subnet in a family that is on"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			peers, refused := new(subnet.Vetter).Vet(network, own, pointers(tt.leases...))
			if got, want := len(peers)+len(refused), len(tt.leases)-1; got != want {
				t.Errorf("got %d leases, want all %d but ours", got, want)
			}
			if got, want := len(refused), len(tt.want); got != want {
				t.Fatalf("refused %v, want %v", refused, tt.want)
			}
			for _, r := range refused {
				if want := tt.want[r.Lease.Name]; want == "" || !strings.Contains(r.Why, want) {
					t.Errorf("%s: got %q, want %q", r.Lease.Name, r.Why, want)
				}
			}
			for i, l := range tt.leases {
				if subnet.Uncontested(network, own, pointers(tt.leases...), i) && (tt.want[l.Name] != "" || l.Name == own.Name) {
					t.Errorf("%s is called uncontested", l.Name)
				}
			}
		})
	}
}

func TestUncontestedIsWhoTouchesNobody(t *testing.T) {
	network := ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.5.0.0/16")}
	own := lease("own", "10.5.1.0/24", "192.0.2.1", 5)
	leases := []subnet.Lease{
		own, lease("alone", "10.5.2.0/24", "192.0.2.2", 6),
		lease("a", "10.5.4.0/24", "192.0.2.3", 7), lease("b", "10.5.5.0/24", "192.0.2.3", 8), // one address
		lease("c", "10.5.8.0/22", "192.0.2.5", 9), lease("d", "10.5.9.0/24", "192.0.2.6", 10), // subnets overlap
		{Name: "e", Invalid: "no JSON"},
	}
	for i, l := range leases {
		if got := subnet.Uncontested(network, own, pointers(leases...), i); got != (l.Name == "alone") {
			t.Errorf("%s: got %t", l.Name, got)
		}
	}
}

func TestVetterForgetsWhatItSawBefore(t *testing.T) {
	network := ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.5.0.0/16")}
	own := lease("own", "10.5.1.0/24", "192.0.2.1", 5)
	first, second := lease("a", "10.5.2.0/24", "192.0.2.2", 6), lease("b", "10.5.2.0/23", "192.0.2.2", 7)
	var v subnet.Vetter
	for range 2 {
		if peers, refused := v.Vet(network, own, pointers(own, first, second)); len(peers) != 1 || len(refused) != 1 {
			t.Errorf("two that collide: %v, refused %v", peers, refused)
		}
		if peers, refused := v.Vet(network, own, pointers(second)); len(peers) != 1 || len(refused) != 0 {
			t.Errorf("the one alone: %v, refused %v", peers, refused)
		}
	}
}

// A short prefix that overlaps everybody must not cost a comparison of all
// pairs.
func BenchmarkVetOneOverlapsAll(b *testing.B) {
	network := ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.0.0.0/8")}
	leases := pointers(lease("hostile", "10.0.0.0/9", "192.0.2.1", 1<<40))
	for i := range 5000 {
		leases = append(leases, pointers(lease(fmt.Sprint(i), fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255), fmt.Sprintf("172.16.%d.%d", i>>8, i&255), int64(i)))...)
	}
	var v subnet.Vetter
	for b.Loop() {
		if _, refused := v.Vet(network, lease("own", "10.200.0.0/24", "192.0.2.2", 0), leases); len(refused) != 1 {
			b.Fatalf("%d refused", len(refused))
		}
	}
}

func BenchmarkVet(b *testing.B) {
	network := ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.0.0.0/8")}
	leases := make([]subnet.Lease, 5000)
	for i := range leases {
		j := (i * 2741) % len(leases)
		leases[i] = lease(fmt.Sprint(j), fmt.Sprintf("10.%d.%d.0/24", j>>8, j&255), fmt.Sprintf("172.16.%d.%d", j>>8, j&255), int64(j))
	}
	var v subnet.Vetter
	all := pointers(leases...)
	b.ReportAllocs()
	for b.Loop() {
		v.Vet(network, leases[0], all)
	}
}
