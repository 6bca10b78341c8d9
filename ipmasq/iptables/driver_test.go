package iptables

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/nstest"
	"flannel/ipmasq"
)

// host is a namespace with a driver of one mode in it.
type host struct {
	*nstest.NS
	t      *testing.T
	suffix string
	driver *Driver
}

// ownLock keeps legacy programs from the lock file of the host.
func ownLock(t *testing.T) {
	t.Helper()
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
}

// eachMode runs a test in a namespace per mode.
func eachMode(t *testing.T, test func(t *testing.T, h host)) {
	for _, mode := range []Mode{NFT, Legacy} {
		t.Run(string(mode), func(t *testing.T) {
			ownLock(t)
			h := host{NS: nstest.New(t), t: t, suffix: "-" + string(mode)}
			var err error
			var ts tools
			h.Do(func() { ts, err = find(ipfam.Pair[bool]{true, true}, h.suffix) })
			if err != nil {
				t.Fatal(err)
			}
			h.driver = &Driver{log: slog.New(slog.DiscardHandler), tools: ts, mode: mode}
			test(t, h)
		})
	}
}

func (h host) apply(c ipmasq.Config) ipmasq.Changes {
	h.t.Helper()
	var changes ipmasq.Changes
	var err error
	h.Do(func() { changes, err = h.driver.Apply(context.Background(), c) })
	if err != nil {
		h.t.Fatal(err)
	}
	return changes
}

// text is what the kernel holds of our tables, in the form of Text.
func (h host) text(f ipfam.Family) string {
	h.t.Helper()
	var b strings.Builder
	for _, table := range ipmasq.Tables() {
		for line := range strings.Lines(h.Tool(names[f]+h.suffix, "-t", string(table), "-S")) {
			if strings.HasPrefix(line, "-A") {
				b.WriteString(string(table) + " " + line)
			}
		}
	}
	return b.String()
}

// sh runs an iptables command, without quotes, with the programs of the mode.
func (h host) sh(command string) string {
	h.t.Helper()
	name, args, _ := strings.Cut(command, " ")
	return h.Tool(name+h.suffix, args)
}

func (h host) right(c ipmasq.Config) {
	h.t.Helper()
	for _, f := range ipfam.All() {
		if got, want := h.text(f), text(c, f); got != want {
			h.t.Errorf("%s: got\n%s\nwant\n%s", f, got, want)
		}
	}
	if again := h.apply(c); len(again) > 0 {
		h.t.Errorf("the second time wrote %v", again)
	}
}

func TestApplyAndRemove(t *testing.T) {
	eachMode(t, func(t *testing.T, h host) {
		c := dual()
		c.Exclude = []netip.Prefix{prefix("192.0.2.0/24"), prefix("198.51.100.7/32"), prefix("2001:db8::7/128")}
		h.apply(c)
		h.right(c)
		c.Subnet[ipfam.V4] = prefix("10.244.99.0/24")
		c.Exclude = c.Exclude[1:]
		h.apply(c)
		h.right(c)
		h.apply(c.None())
		for _, f := range ipfam.All() {
			if got := h.text(f); got != "" {
				t.Errorf("left after removal:\n%s", got)
			}
		}
		if got := h.sh("iptables -t nat -S"); strings.Contains(got, "FLANNEL") {
			t.Errorf("left after removal:\n%s", got)
		}
		if again := h.apply(c.None()); len(again) > 0 {
			t.Errorf("removed again: %v", again)
		}
	})
}

func TestRulesOfOthersStay(t *testing.T) {
	eachMode(t, func(t *testing.T, h host) {
		h.sh("iptables -t nat -A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE")
		h.sh("iptables -P FORWARD DROP")
		a, b := dual(), dual()
		b.Network[ipfam.V4], b.Subnet[ipfam.V4] = prefix("10.245.0.0/16"), prefix("10.245.3.0/24")
		b.Network[ipfam.V6], b.Subnet[ipfam.V6] = prefix("fd00:10:245::/56"), prefix("fd00:10:245:3::/64")
		h.apply(a)
		h.apply(b)
		h.sh("iptables -t nat -A FLANNEL-POSTRTG -s 10.244.0.0/16 -o lo -j RETURN")
		for _, c := range []ipmasq.Config{a, b} {
			if changes := h.apply(c); len(changes) > 0 {
				t.Errorf("wrote %v", changes)
			}
		}
		before := h.text(ipfam.V4)
		h.apply(b.None())
		h.apply(b)
		if got := h.text(ipfam.V4); !same(got, before) {
			t.Errorf("got\n%s\nwant\n%s", got, before)
		}
		h.apply(b.None())
		h.apply(a.None())
		got := h.text(ipfam.V4)
		want := "nat -A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE\n" +
			"nat -A POSTROUTING " + chainOf(ipmasq.Nat).jump() + "\n" +
			"nat -A FLANNEL-POSTRTG " + chainOf(ipmasq.Nat).format(ipmasq.Rule{Marked: true}) + "\n" +
			"nat -A FLANNEL-POSTRTG -s 10.244.0.0/16 -o lo -j RETURN\n"
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// same compares lines in any order.
func same(a, b string) bool {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

func TestNetworkOfAnEarlierRun(t *testing.T) {
	eachMode(t, func(t *testing.T, h host) {
		old := dual()
		old.Network[ipfam.V4], old.Subnet[ipfam.V4] = prefix("10.99.0.0/16"), prefix("10.99.1.0/24")
		h.apply(old)
		c := dual()
		c.Previous[ipfam.V4] = []netip.Prefix{old.Network[ipfam.V4]}
		h.apply(c)
		h.right(c)
	})
}

func TestTheModeOfOtherRulesIsChosen(t *testing.T) {
	for _, mode := range []Mode{NFT, Legacy} {
		t.Run(string(mode), func(t *testing.T) {
			ownLock(t)
			h := host{NS: nstest.New(t), t: t, suffix: "-" + string(mode)}
			h.sh("ip6tables -A FORWARD -s 2001:db8::/32 -j ACCEPT")
			var chosen, other *Driver
			var err error
			h.Do(func() {
				chosen, other, err = New(t.Context(), Options{Log: slog.New(slog.DiscardHandler), Families: ipfam.Pair[bool]{true, true}})
			})
			if err != nil {
				t.Fatal(err)
			}
			if chosen.Mode() != mode || other.Mode() == mode {
				t.Errorf("chose %s", chosen.Mode())
			}
		})
	}
}

func TestNoPrograms(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, _, err := New(t.Context(), Options{Log: slog.New(slog.DiscardHandler), Families: ipfam.Pair[bool]{true, true}})
	if !errors.Is(err, ErrNoTool) {
		t.Errorf("got %v", err)
	}
}

func TestWhatHasNotChangedIsNotReadAgain(t *testing.T) {
	eachMode(t, func(t *testing.T, h host) {
		generation := uint32(1)
		h.driver.generation = func() (uint32, error) { return generation, nil }
		h.apply(dual())
		h.apply(dual())
		h.sh("iptables -t nat -F FLANNEL-POSTRTG")
		if changes := h.apply(dual()); len(changes) > 0 {
			t.Errorf("wrote %v although the generation is the same", changes)
		}
		generation++
		if changes := h.apply(dual()); len(changes) == 0 {
			t.Error("wrote nothing although the generation has changed")
		}
		h.right(dual())
	})
}

// The image has the programs of both modes, whatever the kernel has.
func TestAKernelWithoutNFTablesHasLegacyTables(t *testing.T) {
	none := func() (uint32, error) { return 0, errors.New("no nf_tables") }
	nstest.New(t).Do(func() {
		chosen, other, err := New(t.Context(), Options{
			Families: ipfam.Pair[bool]{true, true}, Generation: none, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil || chosen.Mode() != Legacy || other != nil {
			t.Errorf("chosen %v, other %v, %v", chosen, other, err)
		}
	})
}

func TestWhatIsLeftInLegacyTablesIsSaidOnce(t *testing.T) {
	ownLock(t)
	h := host{NS: nstest.New(t), t: t, suffix: "-legacy"}
	var log bytes.Buffer
	notice := &LegacyNotice{Log: slog.New(slog.NewTextHandler(&log, nil))}
	look := func() {
		h.Do(func() {
			if changes, err := notice.Remove(t.Context(), dual()); changes != nil || err != nil {
				t.Error(changes, err)
			}
		})
	}
	look()
	h.sh("ip6tables -t nat -N FLANNEL-POSTRTG")
	h.sh("ip6tables -t nat -A FLANNEL-POSTRTG -s fd00:99::/56 -j RETURN")
	look()
	if log.Len() > 0 {
		t.Errorf("said %s", log.String())
	}
	h.sh("ip6tables -t nat -A FLANNEL-POSTRTG -s fd00:10:244::/56 -j RETURN")
	h.sh("iptables -N FLANNEL-FWD")
	h.sh("iptables -A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT")
	look()
	look()
	got := log.String()
	if strings.Count(got, "ip6tables-legacy -t nat -X FLANNEL-POSTRTG") != 1 || strings.Count(got, " iptables-legacy -t filter -X FLANNEL-FWD") != 1 {
		t.Errorf("said %s", got)
	}
}

// Rules in the words of nft make a chain unreadable for iptables; a jump that
// is not seen must not be added again and again.
func TestAChainThatCannotBeReadIsLeftAlone(t *testing.T) {
	h := host{NS: nstest.New(t), t: t, suffix: "-nft"}
	ts, err := find(ipfam.Pair[bool]{true, true}, h.suffix)
	if err != nil {
		t.Fatal(err)
	}
	h.driver = &Driver{log: slog.New(slog.DiscardHandler), tools: ts, mode: NFT}
	h.apply(dual())
	h.Tool("nft", "add set ip nat some { type ipv4_addr ; }")
	h.Tool("nft", "add rule ip nat POSTROUTING ip saddr @some masquerade")
	before := h.Tool("nft", "list ruleset")
	h.Do(func() { _, err = h.driver.Apply(t.Context(), dual()) })
	if err == nil || !strings.Contains(err.Error(), "nft list table ip nat") {
		t.Errorf("got %v", err)
	}
	if now := h.Tool("nft", "list ruleset"); now != before {
		t.Errorf("before\n%s\nnow\n%s", before, now)
	}
}
