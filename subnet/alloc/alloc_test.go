package alloc

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

func seeded() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func pair(texts ...string) ipfam.Pair[netip.Prefix] {
	var p ipfam.Pair[netip.Prefix]
	for _, s := range prefixes(texts...) {
		p[ipfam.Of(s.Addr())] = s
	}
	return p
}

func pools(t *testing.T, config string) Pools {
	t.Helper()
	c, err := subnet.ParseConfig([]byte(config), true)
	if err != nil {
		t.Fatal(err)
	}
	return Of(c)
}

func pool(network string, bits int, first, last string) Pool {
	return Pool{netip.MustParsePrefix(network), bits, netip.MustParseAddr(first), netip.MustParseAddr(last)}
}

func TestDrawFindsEveryFreeSubnetAndNoOther(t *testing.T) {
	small4 := pool("10.0.0.0/20", 24, "10.0.1.0", "10.0.15.0")
	small6 := pool("fd00::/56", 60, "fd00:0:0:10::", "fd00:0:0:f0::")
	cases := []struct {
		name string
		pool Pool
		used []netip.Prefix
		want int
	}{
		{"nothing used", small4, nil, 15},
		{"one used", small4, prefixes("10.0.4.0/24"), 14},
		{"used twice", small4, prefixes("10.0.4.0/24", "10.0.4.0/24"), 14},
		{"the first and the last used", small4, prefixes("10.0.1.0/24", "10.0.15.0/24"), 13},
		{"a larger and a smaller one used", small4, prefixes("10.0.4.0/22", "10.0.9.128/25"), 10},
		{"one used before the range", small4, prefixes("10.0.0.0/24"), 15},
		{"one used across the start of the range", small4, prefixes("10.0.0.0/23"), 14},
		{"foreign and absurd ones used", small4, prefixes("10.9.0.0/24", "10.0.0.0/8", "10.0.0.0/20"), 15},
		{"one free", small4, prefixes("10.0.0.0/21", "10.0.8.0/22", "10.0.12.0/23", "10.0.15.0/24"), 1},
		{"IPv6", small6, prefixes("fd00:0:0:10::/60", "fd00:0:0:80::/58"), 10},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			rnd, used := seeded(), c.used
			for range c.want {
				s, ok := c.pool.Draw(rnd, used)
				if !ok || !c.pool.Fits(s) || slices.ContainsFunc(inside(c.pool, used), s.Overlaps) {
					t.Fatalf("drew %s, %t with %d used", s, ok, len(used))
				}
				used = append(used, s)
			}
			if s, ok := c.pool.Draw(rnd, used); ok {
				t.Errorf("drew %s from a full pool", s)
			}
		})
	}
}

func inside(p Pool, used []netip.Prefix) []netip.Prefix {
	var in []netip.Prefix
	for _, u := range used {
		if p.holds(u) {
			in = append(in, u)
		}
	}
	return in
}

func TestDrawFromHugePools(t *testing.T) {
	for _, p := range []Pool{
		pool("2001:db8::/32", 64, "2001:db8:0:1::", "2001:db8:ffff:ffff::"),
		pool("fc00::/7", 126, "fc00::4", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:fffc"),
	} {
		rnd := seeded()
		seen := map[netip.Prefix]bool{}
		var used []netip.Prefix
		for range 200 {
			s, ok := p.Draw(rnd, used)
			if !ok || !p.Fits(s) || seen[s] {
				t.Fatalf("%s: drew %s, %t", p, s, ok)
			}
			seen[s] = true
			used = append(used, s)
		}
	}
}

func TestDrawIsEven(t *testing.T) {
	p := pool("10.0.0.0/22", 24, "10.0.0.0", "10.0.3.0")
	rnd, count := seeded(), map[netip.Prefix]int{}
	for range 3000 {
		s, _ := p.Draw(rnd, prefixes("10.0.1.0/24"))
		count[s]++
	}
	for s, n := range count {
		if n < 850 || n > 1150 {
			t.Errorf("%s was drawn %d times of 3000, want about 1000", s, n)
		}
	}
}

const dual = `{"Network":"10.0.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}`

func TestChoosePrefersWhatFits(t *testing.T) {
	p := pools(t, dual)
	used := []ipfam.Pair[netip.Prefix]{
		pair("10.0.5.0/24", "fd00:0:0:5::/64"), pair("10.0.0.0/8", "fd00::/16"), // larger than the network
	}
	cases := []struct {
		name   string
		prefer ipfam.Pair[netip.Prefix]
		want   ipfam.Pair[netip.Prefix] // invalid: any
	}{
		{"both free", pair("10.0.7.0/24", "fd00:0:0:7::/64"), pair("10.0.7.0/24", "fd00:0:0:7::/64")},
		{"one used", pair("10.0.5.0/24", "fd00:0:0:7::/64"), pair("fd00:0:0:7::/64")},
		{"outside", pair("10.9.0.0/24", "fd00:0:0:7::/64"), pair("fd00:0:0:7::/64")},
		{"another length", pair("10.0.7.0/25"), pair()},
		{"none", pair(), pair()},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := p.Choose([]ipfam.Pair[netip.Prefix]{c.prefer}, used, seeded())
			if err != nil || !p.Fit(got) || p.Overlap(got, used[0]) {
				t.Fatalf("Choose = %v, %v", got, err)
			}
			for f, want := range ipfam.Prefixes(c.want) {
				if got[f] != want {
					t.Errorf("%s = %s, want %s", f, got[f], want)
				}
			}
		})
	}
}

func TestChooseSaysWhichPoolIsFull(t *testing.T) {
	p := pools(t, `{"Network":"10.0.0.0/28"}`)
	var used []ipfam.Pair[netip.Prefix]
	for {
		s, err := p.Choose(nil, used, seeded())
		if errors.Is(err, ErrFull) {
			break
		}
		used = append(used, s)
	}
	if len(used) != 3 {
		t.Errorf("%d subnets were given, want 3", len(used))
	}
}

func TestFit(t *testing.T) {
	p := pools(t, `{"Network":"10.0.0.0/16"}`)
	for text, want := range map[string]bool{
		"10.0.1.0/24": true, "10.0.255.0/24": true, "10.0.0.0/24": false, "10.1.0.0/24": false,
		"10.0.1.1/24": false, "10.0.2.0/23": false, "fd00::/64": false,
	} {
		if got := p.Fit(pair(text)); got != want {
			t.Errorf("Fit(%s) = %t, want %t", text, got, want)
		}
	}
	if p.Fit(pair("10.0.1.0/24", "fd00::/64")) {
		t.Error("a subnet of a family that is off fits")
	}
}
