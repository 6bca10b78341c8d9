package subnet_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// lease returns an IPv4 lease of a vxlan node; age decides precedence.
func lease(name, prefix, public string, age int64) subnet.Lease {
	l := subnet.Lease{Name: name, Precedence: subnet.Precedence{Age: age, Name: name}}
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

func TestOnlyBadLeasesAreRejected(t *testing.T) {
	site := siteOf("10.5.0.0/16")
	own := lease("own", "10.5.1.0/24", "192.0.2.1", 5)
	good := lease("good", "10.5.2.0/24", "192.0.2.2", 6)
	grace := func(l *subnet.Lease) { l.Precedence.Grace = true }
	udp := func(l *subnet.Lease) { l.Attrs.BackendType = "udp" }
	keyed := func(l *subnet.Lease) { l.Attrs.Data[ipfam.V4] = `{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}` }
	tests := map[string]struct {
		leases []subnet.Lease
		want   map[string]string // rejected name: part of the reason
	}{
		"nothing wrong":      {[]subnet.Lease{own, good}, nil},
		"not decoded":        {[]subnet.Lease{own, good, {Name: "x", Invalid: "value: bad JSON"}}, map[string]string{"x": "bad JSON"}},
		"outside Network":    {[]subnet.Lease{own, good, lease("x", "10.6.1.0/24", "192.0.2.3", 1)}, map[string]string{"x": "outside the network 10.5.0.0/16"}},
		"the whole Network":  {[]subnet.Lease{own, good, lease("x", "10.5.0.0/16", "192.0.2.3", 1)}, map[string]string{"x": "outside the network"}},
		"inside our subnet":  {[]subnet.Lease{own, good, lease("x", "10.5.1.128/25", "192.0.2.3", 1)}, map[string]string{"x": "overlaps this node's 10.5.1.0/24"}},
		"around our subnet":  {[]subnet.Lease{own, good, lease("x", "10.5.0.0/20", "192.0.2.3", 1)}, map[string]string{"x": "overlaps this node's"}},
		"our public address": {[]subnet.Lease{own, good, with(lease("x", "10.5.3.0/24", "192.0.2.1", 1), keyed)}, map[string]string{"x": "192.0.2.1 is on an interface of this host"}},
		"another of ours":    {[]subnet.Lease{own, good, lease("x", "10.5.3.0/24", "198.51.100.7", 1)}, map[string]string{"x": "198.51.100.7 is on an interface of this host"}},
		"in its own subnet":  {[]subnet.Lease{own, good, lease("x", "10.5.3.0/24", "10.5.3.4", 1)}, map[string]string{"x": "10.5.3.4 is inside its own subnet"}},
		"in our subnet":      {[]subnet.Lease{own, good, lease("x", "10.5.3.0/24", "10.5.1.4", 1)}, map[string]string{"x": "10.5.1.4 is inside this node's subnet"}},
		"in another subnet":  {[]subnet.Lease{own, good, lease("x", "10.5.3.0/24", "10.5.2.4", 9)}, map[string]string{"x": "10.5.2.4 is inside the subnet 10.5.2.0/24 of the older lease good"}},
		"around an address": {
			[]subnet.Lease{own, lease("good", "10.5.2.0/24", "10.5.9.4", 1), lease("x", "10.5.9.0/24", "192.0.2.3", 9)},
			map[string]string{"x": "subnet 10.5.9.0/24 holds the public address 10.5.9.4 of the older lease good"},
		},
		"too large":          {[]subnet.Lease{own, good, lease("x", "10.5.128.0/19", "192.0.2.3", 9)}, map[string]string{"x": "10.5.128.0/19 is too large: usual is /24"}},
		"large":              {[]subnet.Lease{own, good, lease("x", "10.5.128.0/20", "192.0.2.3", 9)}, nil},
		"around the gateway": {[]subnet.Lease{own, good, lease("x", "10.5.77.0/24", "192.0.2.3", 1)}, map[string]string{"x": "10.5.77.0/24 holds the default gateway 10.5.77.1"}},
		"IPv6 too":           {[]subnet.Lease{own, good, ipv6("x", "fd00:5:0:3::/64", "fd00:5:0:3::4")}, map[string]string{"x": "fd00:5:0:3::4 is inside its own subnet"}},
		"IPv6 of ours":       {[]subnet.Lease{own, good, ipv6("x", "fd00:5:0:3::/64", "2001:db8::1")}, map[string]string{"x": "2001:db8::1 is on an interface"}},
		"IPv6 too large":     {[]subnet.Lease{own, good, ipv6("x", "fd00:5:0:8000::/59", "2001:db8::3")}, map[string]string{"x": "too large: usual is /64"}},
		"IPv6 gateway":       {[]subnet.Lease{own, good, ipv6("x", "fd00:5:0:77::/64", "2001:db8::3")}, map[string]string{"x": "holds the default gateway fd00:5:0:77::1"}},
		"no public address":  {[]subnet.Lease{own, good, lease("x", "10.5.3.0/24", "", 1)}, map[string]string{"x": "no public address"}},
		"loopback":           {[]subnet.Lease{own, good, lease("x", "10.5.3.0/24", "127.0.0.1", 1)}, map[string]string{"x": "cannot be a host's"}},
		"multicast":          {[]subnet.Lease{own, good, lease("x", "10.5.3.0/24", "224.0.0.1", 1)}, map[string]string{"x": "cannot be a host's"}},
		"younger overlap":    {[]subnet.Lease{own, good, lease("x", "10.5.2.128/25", "192.0.2.3", 9)}, map[string]string{"x": "of the older lease good"}},
		"older overlap":      {[]subnet.Lease{own, good, lease("x", "10.5.2.0/23", "192.0.2.3", 1)}, map[string]string{"good": "of the older lease x"}},
		"same age, by name":  {[]subnet.Lease{own, good, lease("a", "10.5.2.0/25", "192.0.2.3", 6)}, map[string]string{"good": "of the older lease a"}},
		"live before grace":  {[]subnet.Lease{own, with(good, grace), lease("x", "10.5.2.0/25", "192.0.2.3", 9)}, map[string]string{"good": "of the older lease x"}},
		"same address":       {[]subnet.Lease{own, good, lease("x", "10.5.3.0/24", "192.0.2.2", 9)}, nil},
		"shared address, udp": {[]subnet.Lease{
			own, with(good, udp), with(lease("x", "10.5.3.0/24", "192.0.2.2", 9), udp), with(lease("y", "10.5.4.0/24", "192.0.2.2", 9), udp),
		}, nil},
		"one node, an older record restored": {[]subnet.Lease{
			own, good, with(lease("x", "10.5.3.0/24", "192.0.2.2", 9), grace),
		}, nil},
		"one overlaps many": {[]subnet.Lease{
			own, good, lease("b", "10.5.3.0/24", "192.0.2.3", 7), lease("x", "10.5.2.0/23", "192.0.2.4", 9),
		}, map[string]string{"x": "older lease"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			validation := new(subnet.Validator).Validate(site, &own, pointers(tt.leases...))
			peers, rejected := validation.Peers, validation.Rejected
			if got, want := len(peers)+len(rejected), len(tt.leases)-1; got != want {
				t.Errorf("got %d leases, want all %d but ours", got, want)
			}
			if got, want := len(rejected), len(tt.want); got != want {
				t.Fatalf("rejected %v, want %v", rejected, tt.want)
			}
			for _, r := range rejected {
				if want := tt.want[r.Lease.Name]; want == "" || !strings.Contains(r.Err.Error(), want) {
					t.Errorf("%s: got %q, want %q", r.Lease.Name, r.Err, want)
				}
			}
		})
	}
}

func TestAFamilyThatIsOffDoesNotMatter(t *testing.T) {
	site := siteOf("10.5.0.0/16")
	site.Network[ipfam.V6] = netip.Prefix{}
	own := lease("own", "10.5.1.0/24", "192.0.2.1", 5)
	x := subnet.Lease{Name: "x", Subnet: ipfam.Pair[netip.Prefix]{ipfam.V6: netip.MustParsePrefix("fc00::/64")}}
	got := new(subnet.Validator).Validate(site, &own, pointers(x))
	if len(got.Rejected) != 1 || got.Rejected[0].Err.Error() != "no subnet in an enabled family" {
		t.Errorf("got %+v, want it rejected", got)
	}
	if got := new(subnet.Validator).Validate(site, &own, pointers(ipv6("y", "fc00::/64", "2001:db8::1"))); len(got.Peers) != 1 {
		t.Errorf("got %+v, want it used", got)
	}
}

func TestTheValidatorForgetsWhatItSawBefore(t *testing.T) {
	site := siteOf("10.5.0.0/16")
	own := lease("own", "10.5.1.0/24", "192.0.2.1", 5)
	first, second := lease("a", "10.5.2.0/24", "192.0.2.2", 6), lease("b", "10.5.2.0/23", "192.0.2.2", 7)
	var v subnet.Validator
	for range 2 {
		if got := v.Validate(site, &own, pointers(own, first, second)); len(got.Peers) != 1 || len(got.Rejected) != 1 {
			t.Errorf("two that collide: %+v", got)
		}
		if got := v.Validate(site, &own, pointers(second)); len(got.Peers) != 1 || len(got.Rejected) != 0 {
			t.Errorf("the one alone: %+v", got)
		}
	}
}

// A short prefix that overlaps everybody must not cost a comparison of all
// pairs.
func BenchmarkValidateOneOverlapsAll(b *testing.B) {
	site := siteOf("10.0.0.0/8")
	site.Bits[ipfam.V4], site.Reserved = 13, nil
	own := lease("own", "10.200.0.0/24", "192.0.2.2", 0)
	leases := pointers(lease("hostile", "10.0.0.0/9", "192.0.2.3", 1<<40))
	for i := range 5000 {
		leases = append(leases, pointers(lease(fmt.Sprint(i), fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255), fmt.Sprintf("172.16.%d.%d", i>>8, i&255), int64(i)))...)
	}
	var v subnet.Validator
	for b.Loop() {
		if got := v.Validate(site, &own, leases); len(got.Rejected) != 1 {
			b.Fatalf("%d rejected", len(got.Rejected))
		}
	}
}

// BenchmarkValidate validates a large network, once as it should be, and once with the
// nodes themselves inside Network, which makes a note of each.
func BenchmarkValidate(b *testing.B) {
	for name, public := range map[string]string{"": "172.16.%d.%d", "nodes inside": "10.128.%d.%d"} {
		b.Run(name, func(b *testing.B) {
			site := siteOf("10.0.0.0/8")
			leases := make([]subnet.Lease, 5000)
			for i := range leases {
				j := (i * 2741) % len(leases)
				leases[i] = lease(fmt.Sprint(j), fmt.Sprintf("10.%d.%d.0/24", j>>8, j&255), fmt.Sprintf(public, j>>8, j&255), int64(j))
			}
			var v subnet.Validator
			all := pointers(leases...)
			b.ReportAllocs()
			for b.Loop() {
				v.Validate(site, &leases[0], all)
			}
		})
	}
}

// siteOf is a host whose addresses are 192.0.2.1, 198.51.100.7 and 2001:db8::1.
func siteOf(network string) *subnet.Site {
	return &subnet.Site{
		Network: ipfam.Pair[netip.Prefix]{netip.MustParsePrefix(network), netip.MustParsePrefix("fd00:5::/48")},
		Bits:    ipfam.Pair[int]{0, 64},
		Local:   []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::1")},
		Reserved: []subnet.Reserved{
			{Addr: netip.MustParseAddr("10.5.77.1"), What: "the default gateway 10.5.77.1"},
			{Addr: netip.MustParseAddr("fd00:5:0:77::1"), What: "the default gateway fd00:5:0:77::1"},
		},
	}
}

// ipv6 adds IPv6 to a lease that is otherwise sound.
func ipv6(name, prefix, public string) subnet.Lease {
	l := lease(name, "10.5.3.0/24", "192.0.2.3", 9)
	l.Subnet[ipfam.V6], l.Attrs.PublicIP[ipfam.V6] = netip.MustParsePrefix(prefix), netip.MustParseAddr(public)
	return l
}

func TestUnusualLeasesAreUsedAndNoted(t *testing.T) {
	own := lease("own", "10.5.1.0/24", "192.0.2.1", 5)
	site := siteOf("10.5.0.0/16")
	site.Local = nil // behind a NAT
	udp := func(l *subnet.Lease) { l.Attrs.BackendType = "udp" }
	grace := func(l *subnet.Lease) { l.Precedence.Grace = true }
	a, b := lease("a", "10.5.2.0/24", "192.0.2.2", 6), lease("b", "10.5.3.0/24", "192.0.2.2", 9)
	tests := map[string]struct {
		leases []subnet.Lease
		notes  string
		shared int
	}{
		"nothing":            {pointees(a), "", 0},
		"one address":        {pointees(a, b), "a: public address 192.0.2.2 is that of b too; b: public address 192.0.2.2 is that of a too", 1},
		"one NAT":            {pointees(with(a, udp), with(b, udp)), "", 1},
		"one node":           {pointees(a, with(b, grace)), "", 0},
		"our address":        {pointees(lease("x", "10.5.2.0/24", "192.0.2.1", 1)), "x: public address 192.0.2.1 is this node's too", 1},
		"inside the network": {pointees(lease("x", "10.5.2.0/24", "10.5.9.9", 1)), "x: public address 10.5.9.9 is inside the network", 0},
		"an unusual length":  {pointees(lease("x", "10.5.2.0/26", "192.0.2.3", 1)), "x: subnet 10.5.2.0/26 has an unusual length: usual is /24", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := new(subnet.Validator).Validate(site, &own, pointers(tt.leases...))
			if len(got.Peers) != len(tt.leases) || len(got.Rejected) > 0 || len(got.Shared) != tt.shared {
				t.Errorf("got %+v, want all used and %d addresses shared", got, tt.shared)
			}
			var notes []string
			for _, n := range got.Notes {
				notes = append(notes, n.Lease.Name+": "+n.String())
			}
			if got := strings.Join(notes, "; "); got != tt.notes {
				t.Errorf("got notes %q, want %q", got, tt.notes)
			}
		})
	}
}

func pointees(leases ...subnet.Lease) []subnet.Lease { return leases }

// This node's record has another subnet than it knows while one is acquired.
func TestThisNodesRecordIsNoPeer(t *testing.T) {
	own := lease("own", "10.5.1.0/24", "192.0.2.1", 5)
	keyed := func(l *subnet.Lease) { l.Attrs.Data[ipfam.V4] = `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}` }
	renumbered := lease("own", "10.5.9.0/24", "192.0.2.1", 5)
	for name, tt := range map[string]struct {
		own, record subnet.Lease
		local       bool
	}{
		"an address of this host": {own, lease("10.5.9.0-24", "10.5.9.0/24", "192.0.2.1", 9), true},
		"behind a NAT":            {with(own, keyed), with(lease("10.5.9.0-24", "10.5.9.0/24", "192.0.2.1", 9), keyed), false},
		"our Node":                {own, renumbered, true},
	} {
		t.Run(name, func(t *testing.T) {
			site := siteOf("10.5.0.0/16")
			if !tt.local {
				site.Local = nil
			}
			if got := new(subnet.Validator).Validate(site, &tt.own, pointers(tt.record)); len(got.Peers)+len(got.Rejected)+len(got.Notes) > 0 {
				t.Errorf("got %+v, want nothing", got)
			}
		})
	}
}

// TestTheOldestOfThoseThatCollideIsUsed compares with the definition: by age, a
// lease is used unless it collides with one that is used.
func TestTheOldestOfThoseThatCollideIsUsed(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	site := siteOf("10.5.0.0/16")
	site.Reserved = nil
	own := lease("own", "10.5.255.0/24", "192.0.2.1", 0)
	collide := func(a, b *subnet.Lease) bool {
		s, o := a.Subnet[ipfam.V4], b.Subnet[ipfam.V4]
		return s.Overlaps(o) || s.Contains(b.Attrs.PublicIP[ipfam.V4]) || o.Contains(a.Attrs.PublicIP[ipfam.V4])
	}
	var v subnet.Validator
	for range 200 {
		var leases []*subnet.Lease
		for i := range 1 + rnd.IntN(30) {
			s := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(rnd.IntN(40)), byte(rnd.IntN(256))}), 22+rnd.IntN(5)).Masked()
			public := []string{fmt.Sprintf("172.16.0.%d", i), fmt.Sprintf("10.5.%d.9", rnd.IntN(40))}[rnd.IntN(8)/7]
			if l := lease(fmt.Sprint(i), s.String(), public, rnd.Int64N(1000)); !s.Contains(l.Attrs.PublicIP[ipfam.V4]) {
				leases = append(leases, &l)
			}
		}
		byAge := slices.SortedFunc(slices.Values(leases), func(a, b *subnet.Lease) int {
			return cmp.Or(cmp.Compare(a.Precedence.Age, b.Precedence.Age), strings.Compare(a.Name, b.Name))
		})
		want := map[string]bool{}
		for i, l := range byAge {
			want[l.Name] = !slices.ContainsFunc(byAge[:i], func(o *subnet.Lease) bool { return want[o.Name] && collide(l, o) })
		}
		for _, l := range v.Validate(site, &own, leases).Peers {
			if !want[l.Name] {
				t.Errorf("%s is used: %v", l.Name, l.Subnet)
			}
			delete(want, l.Name)
		}
		for name, used := range want {
			if used {
				t.Errorf("%s is rejected", name)
			}
		}
	}
}
