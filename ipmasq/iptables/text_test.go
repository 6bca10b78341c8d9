package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/golden"
	"flannel/ipmasq"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func dual() ipmasq.Config {
	return ipmasq.Config{
		Network:    ipfam.Pair[netip.Prefix]{prefix("10.244.0.0/16"), prefix("fd00:10:244::/56")},
		Subnet:     ipfam.Pair[netip.Prefix]{prefix("10.244.17.0/24"), prefix("fd00:10:244:3::/64")},
		Masquerade: true, Forward: true, RandomFully: true,
	}
}

func TestText(t *testing.T) {
	for _, f := range ipfam.All() {
		golden.Equal(t, text(dual(), f), "testdata/"+f.String()+".txt")
	}
	c := dual()
	c.RandomFully, c.Forward = false, false
	c.Exclude = []netip.Prefix{prefix("192.0.2.0/24")}
	golden.Equal(t, text(c, ipfam.V4), "testdata/exclude.txt")
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	c := dual()
	c.Exclude = []netip.Prefix{prefix("192.0.2.7/32"), prefix("0.0.0.0/0"), prefix("2001:db8::1/128")}
	for _, f := range ipfam.All() {
		for _, table := range ipmasq.Tables() {
			ch := chainOf(table)
			for _, r := range c.Rules(f, table) {
				e := ch.parseRule(ch.format(r))
				if e.means.Rule != r || !e.means.Plain || !e.means.Commented {
					t.Errorf("%q: got %+v, want %+v", e.text, e, r)
				}
			}
		}
	}
}

func TestRulesThatSayMore(t *testing.T) {
	ch := chainOf(ipmasq.Nat)
	for _, text := range []string{
		`-s 10.244.0.0/16 -o eth0 -m comment --comment "flanneld masq" -j RETURN`,
		`-s 10.244.0.0/16 -p tcp -m tcp --dport 80 -m comment --comment "flanneld masq" -j RETURN`,
		`-m mark --mark 0x1/0x1 -m comment --comment "flanneld masq" -j RETURN`,
		`-m mark ! --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN`,
		`-s 10.244.0.0/16 -m comment --comment "flanneld masq" -j SNAT --to-source 192.0.2.1`,
		`-s`, `--mark`, `-j`, `!`,
	} {
		if e := ch.parseRule(text); e.means.Plain && text != "!" {
			t.Errorf("%s: read as %+v", text, e.means.Rule)
		}
	}
	if e := ch.parseRule(`-s 10.244.0.0/16 -m comment --comment "mine \"x\"" -j RETURN`); e.means.Commented || !e.means.Plain {
		t.Errorf("got %+v", e)
	}
}

func TestSplit(t *testing.T) {
	got := split(`-A X  --comment "a \"b\" c" --x "" -j Y\ Z`)
	want := []string{"-A", "X", "--comment", `a "b" c`, "--x", "", "-j", "Y Z"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzParseRule(f *testing.F) {
	f.Add(`! -s 10.244.0.0/16 -d 10.244.17.0/24 -m comment --comment "flanneld masq" -j RETURN`)
	f.Add(`-m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN`)
	f.Fuzz(func(t *testing.T, text string) {
		ch := chainOf(ipmasq.Nat)
		e := ch.parseRule(text)
		if !e.means.Plain || !e.means.Commented {
			return
		}
		if again := ch.parseRule(ch.format(e.means.Rule)); again.means.Rule != e.means.Rule {
			t.Errorf("%q: %+v becomes %+v", text, e.means.Rule, again.means.Rule)
		}
	})
}

// text returns what iptables -S prints if the kernel has only these rules, with the
// name of the table in front.
func text(c ipmasq.Config, f ipfam.Family) string {
	var lines []string
	for _, table := range ipmasq.Tables() {
		want := c.Rules(f, table)
		if len(want) == 0 {
			continue
		}
		ch := chainOf(table)
		lines = append(lines, fmt.Sprintf("%s -A %s %s", table, ch.Base, ch.jump()))
		for _, r := range want {
			lines = append(lines, fmt.Sprintf("%s -A %s %s", table, ch.Name, ch.format(r)))
		}
	}
	return strings.Join(lines, "\n") + "\n"
}
