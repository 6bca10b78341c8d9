package nftables

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// nodes returns the addresses of n nodes in both families.
func nodes(n int) []netip.Prefix {
	var out []netip.Prefix
	v6 := prefix("2001:db8::/64").Addr().As16()
	for i := range n {
		v6[14], v6[15] = byte(i>>8), byte(i)
		out = append(out,
			netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), 32),
			netip.PrefixFrom(netip.AddrFrom16(v6), 128))
	}
	return out
}

// excluding returns a configuration with these exclusions.
func excluding(c ipmasq.Config, list ...netip.Prefix) ipmasq.Config {
	c.Exclude = list
	return c
}

// writes fails the test when applying c changes something else in nat.
func (h host) writes(what string, c ipmasq.Config, want ipmasq.Change) {
	h.t.Helper()
	if got := h.apply(c)[ipmasq.Nat]; got != want {
		h.t.Errorf("%s: got %+v, want %+v", what, got, want)
	}
	if again := h.apply(c); len(again) > 0 {
		h.t.Errorf("%s: the second time wrote %v", what, again)
	}
}

func TestOneNodeAmongThousandsIsOneElement(t *testing.T) {
	h := newHost(t)
	list := nodes(5000)
	h.apply(dual())
	// In each family the set, and a rule that looks it up.
	h.writes("all nodes", excluding(dual(), list...), ipmasq.Change{Put: 2 * (5000 + 1 + 1)})
	list[2000] = prefix("198.51.100.1/32")
	h.writes("another address", excluding(dual(), list...), ipmasq.Change{Put: 1, Deleted: 1})
	list = slices.Delete(list, 3000, 3002)
	h.writes("a node less", excluding(dual(), list...), ipmasq.Change{Deleted: 2})
	h.writes("no nodes", dual(), ipmasq.Change{Deleted: 2 * (1 + 1)})
	if got := h.ruleset(); strings.Contains(got, "set ") {
		t.Errorf("got\n%s", got)
	}
}

func TestElementsHeal(t *testing.T) {
	h := newHost(t)
	c := excluding(dual(), nodes(3)...)
	h.apply(c)
	want := h.ruleset()
	const v4, v6 = "ip flannel-ipv4 excluded-10.244.0.0-16", "ip6 flannel-ipv6 excluded-fd00_10_244__-56"
	for _, commands := range []string{
		"delete element " + v4 + " { 192.0.0.1 }",
		"add element " + v6 + " { 2001:db8::77 }",
		"flush set " + v6,
		"flush chain ip flannel-ipv4 postrtg",
		"flush chain ip flannel-ipv4 postrtg;delete set " + v4,
		"delete table ip6 flannel-ipv6",
		"flush chain ip flannel-ipv4 postrtg;delete chain ip flannel-ipv4 postrtg;add chain ip flannel-ipv4 postrtg { type nat hook output priority 100; }",
	} {
		h.Tool("nft", commands)
		if changes := h.apply(c); len(changes) == 0 {
			t.Errorf("%s: nothing written", commands)
		}
		h.sameText(commands, want)
	}
}

// A version that has a rule for each address may have run before.
func TestRulesBecomeElements(t *testing.T) {
	h := newHost(t)
	h.apply(dual())
	h.Tool("nft", `insert rule ip flannel-ipv4 postrtg ip saddr 10.244.0.0/16 ip daddr 192.0.0.0 return comment "flanneld masq 10.244.0.0/16"`)
	h.writes("the rule", excluding(dual(), nodes(1)[0]), ipmasq.Change{Put: 2 + 1, Deleted: 1})
}

func TestEachDaemonHasItsSet(t *testing.T) {
	h := newHost(t)
	first, other := excluding(dual(), nodes(2)...), excluding(second(), nodes(3)...)
	h.apply(first)
	alone := h.ruleset()
	h.apply(other)
	both := h.ruleset()
	h.right(first, both)
	h.right(other, both)
	h.apply(other.None())
	h.right(first, alone)
	h.apply(other)
	first.Previous = ipfam.Pair[[]netip.Prefix]{{other.Network[ipfam.V4]}, {other.Network[ipfam.V6]}}
	h.apply(first)
	h.right(first, alone)
	h.apply(first.None())
	h.right(first.None(), "")
}

// What nft lists it can load, so that the usual way of saving rules works.
func TestTheTextCanBeLoaded(t *testing.T) {
	h := newHost(t)
	c := excluding(dual(), nodes(3)...)
	h.apply(c)
	want := h.ruleset()
	file := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(file, []byte("flush ruleset\n"+want), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Tool("nft", "-f "+file)
	h.apply(c) // nft may say the same in other words
	h.right(c, want)
}

func TestElementsAreWatched(t *testing.T) {
	h := newHost(t)
	h.apply(excluding(dual(), nodes(2)...))
	h.Tool("nft", "add table ip mine")
	w := h.watch()
	h.Tool("nft", "add set ip mine addresses { type ipv4_addr; }")
	h.Tool("nft", "add element ip mine addresses { 192.0.2.1 }")
	h.Tool("nft", "delete element ip flannel-ipv4 excluded-10.244.0.0-16 { 192.0.0.1 }")
	w.next(w.own)
	if len(w.other) > 0 {
		t.Error("a set of others counts as a rule of others")
	}
}

// flannel empties the chain and does not look at sets; when the host comes back
// to us, the set serves again.
func TestFlannelAndBackBesideASet(t *testing.T) {
	h := newHost(t)
	c := excluding(dual(), nodes(2)...)
	h.apply(c)
	want := h.ruleset()
	for _, command := range []string{
		"add table ip flannel-ipv4",
		"add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority 100 ; }",
		"flush chain ip flannel-ipv4 postrtg",
		"add rule ip flannel-ipv4 postrtg meta mark 0x4000 return",
		"add rule ip flannel-ipv4 postrtg ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random",
	} {
		h.Tool("nft", command)
	}
	h.apply(c)
	h.right(c, want)
}
