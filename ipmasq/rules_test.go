package ipmasq

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/golden"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func dual() Config {
	return Config{
		Network:    ipfam.Pair[netip.Prefix]{prefix("10.244.0.0/16"), prefix("fd00:10:244::/56")},
		Subnet:     ipfam.Pair[netip.Prefix]{prefix("10.244.17.0/24"), prefix("fd00:10:244:3::/64")},
		Masquerade: true, Forward: true, RandomFully: true,
	}
}

// text writes the rules down in words of no tool.
func text(c Config) string {
	var b strings.Builder
	for _, f := range ipfam.All() {
		for _, t := range Tables() {
			for _, r := range c.Rules(f, t) {
				fmt.Fprintf(&b, "%s %s:%s\n", f, t, words(r))
			}
		}
	}
	return b.String()
}

func words(r Rule) string {
	s := ""
	if r.Marked {
		s += " marked"
	}
	s += address("from", r.Src) + address("to", r.Dst)
	s += " " + []string{"return", "masquerade", "accept"}[r.Do]
	if r.RandomFully {
		s += " random"
	}
	return s
}

func address(name string, m Match) string {
	switch {
	case m.Any():
		return ""
	case m.Not:
		return fmt.Sprintf(" not %s %s", name, m.Prefix)
	}
	return fmt.Sprintf(" %s %s", name, m.Prefix)
}

func TestRules(t *testing.T) {
	golden.Equal(t, text(dual()), "testdata/dual.txt")
}

func TestExcludedDestinations(t *testing.T) {
	c := dual()
	c.Forward = false
	c.Exclude = []netip.Prefix{
		prefix("192.0.2.0/24"), prefix("192.0.2.9/24"), prefix("2001:db8::/32"), prefix("198.51.100.7/32"), {},
	}
	golden.Equal(t, text(c), "testdata/exclude.txt")
}

func TestExcludingEverything(t *testing.T) {
	c := dual()
	c.Exclude = []netip.Prefix{prefix("192.0.2.0/24"), prefix("0.0.0.0/0")}
	got := c.Rules(ipfam.V4, Nat)
	if want := (Rule{Src: Match{Prefix: c.Network[ipfam.V4]}}); len(got) != 7 || got[4] != want {
		t.Errorf("got %v, want %v as the fifth of seven", got, want)
	}
}

func TestExcludingTheOwnSubnetAddsNothing(t *testing.T) {
	c := dual()
	want := text(c)
	c.Exclude = []netip.Prefix{c.Subnet[ipfam.V4], c.Subnet[ipfam.V6]}
	if got := text(c); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNoRulesWithoutWishOrSubnet(t *testing.T) {
	c := dual()
	if got := text(c.None()); got != "" {
		t.Errorf("got\n%s", got)
	}
	c.Subnet[ipfam.V6] = netip.Prefix{}
	if got := text(c); strings.Contains(got, "ipv6") || !strings.Contains(got, "ipv4") {
		t.Errorf("got\n%s", got)
	}
}

func TestOwnership(t *testing.T) {
	c := dual()
	c.Previous[ipfam.V4] = []netip.Prefix{prefix("10.99.0.0/16")}
	for text, want := range map[string]bool{
		"10.244.0.0/16": true, "fd00:10:244::/56": true, "10.99.0.0/16": true,
		"10.244.17.0/24": false, "10.245.0.0/16": false, "10.0.0.0/8": false,
	} {
		if got := c.Owns(prefix(text)); got != want {
			t.Errorf("%s: got %t", text, got)
		}
	}
	for _, f := range ipfam.All() {
		for _, table := range Tables() {
			for _, r := range c.Rules(f, table) {
				if c.OwnsRule(r) == r.Shared() {
					t.Errorf("%v is owned by nobody or by two", r)
				}
			}
		}
	}
}
