package iptables

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"

	"flannel/internal/firewall"
	"flannel/internal/ipfam"
	"flannel/internal/testkit/nstest"
	"flannel/ipmasq"
)

// legacyHost is a namespace whose rules are made by the legacy programs.
func legacyHost(t *testing.T) host {
	ownLock(t)
	return host{NS: nstest.New(t), t: t, suffix: "-" + string(Legacy)}
}

// drops returns what drops in legacy tables.
func (h host) drops(kept bool) []firewall.Finding {
	h.t.Helper()
	var all []firewall.Finding
	h.Do(func() {
		for _, network := range ipfam.Prefixes(dual().Network) {
			found, err := LegacyDrops(network, "", kept)
			if err != nil {
				h.t.Error(err)
			}
			all = append(all, found...)
		}
	})
	return all
}

// A look makes no table: iptables-nft would complain of it.
func TestALookAtLegacyTablesMakesNone(t *testing.T) {
	h := legacyHost(t)
	h.sh("iptables -t nat -A POSTROUTING -j ACCEPT")
	look := func() {
		h.drops(false)
		notice := &LegacyNotice{Log: slog.New(slog.DiscardHandler)}
		h.Do(func() { _, _ = notice.Remove(t.Context(), dual()) })
	}
	look()
	for f, want := range (ipfam.Pair[string]{"nat\n", ""}).Each() {
		var got []byte
		h.Do(func() { got, _ = os.ReadFile(firewall.LegacyTables[f]) })
		if string(got) != want {
			t.Errorf("tables of %s: %q, want %q", f, got, want)
		}
	}
}

// What an earlier run has left in a table that drops all else must stay.
func TestRulesThatKeepPodsTalkingStay(t *testing.T) {
	for _, policy := range []string{"DROP", "ACCEPT"} {
		t.Run(policy, func(t *testing.T) {
			h := legacyHost(t)
			h.Do(func() {
				ts, err := find(ipfam.Pair[bool]{true, true}, h.suffix)
				if err != nil {
					t.Error(err)
				}
				h.driver = &Driver{log: slog.New(slog.DiscardHandler), tools: ts, mode: Legacy}
			})
			h.apply(dual())
			h.sh("iptables -P FORWARD " + policy)
			before := h.text(ipfam.V4)

			if got := h.drops(false); (len(got) == 1) != (policy == "DROP") || len(h.drops(true)) > 0 {
				t.Errorf("got %v", got)
			}
			var log bytes.Buffer
			notice := &LegacyNotice{Log: slog.New(slog.NewTextHandler(&log, nil))}
			var err error
			h.Do(func() { _, err = notice.Remove(t.Context(), dual()) })
			if err != nil || strings.Contains(log.String(), " iptables-legacy -t filter") != (policy == "ACCEPT") ||
				!strings.Contains(log.String(), "ip6tables-legacy -t filter -X FLANNEL-FWD") {
				t.Errorf("%v, said %s", err, log.String())
			}
			h.Do(func() { _, err = h.driver.Remove(t.Context(), dual()) })
			if err != nil {
				t.Fatal(err)
			}
			want := ""
			if policy == "DROP" {
				want = before[strings.Index(before, "filter "):]
			}
			if got := h.text(ipfam.V4); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if got := h.text(ipfam.V6); got != "" {
				t.Errorf("left\n%s", got)
			}
			// Who wants no rules of forwarding has none.
			c := dual()
			c.Forward = false
			h.Do(func() { _, err = h.driver.Remove(t.Context(), c) })
			if got := h.text(ipfam.V4); err != nil || got != "" {
				t.Errorf("%v, left\n%s", err, got)
			}
		})
	}
}

// Where other rules are elsewhere, those of forwarding are in a legacy table as
// long as it drops packets without them.
func TestLift(t *testing.T) {
	h := legacyHost(t)
	h.Do(func() {
		ts, err := find(ipfam.Pair[bool]{true, true}, h.suffix)
		if err != nil {
			t.Error(err)
		}
		h.driver = &Driver{log: slog.New(slog.DiscardHandler), tools: ts, mode: Legacy}
	})
	lift := func(c ipmasq.Config) (n int) {
		t.Helper()
		h.Do(func() {
			changes, err := NewLift(h.driver).Apply(t.Context(), c)
			if err != nil {
				t.Error(err)
			}
			n = changes[ipmasq.Filter].Put + changes[ipmasq.Filter].Deleted
		})
		return n
	}
	tables := func() (text string) {
		h.Do(func() {
			for _, path := range firewall.LegacyTables.Each() {
				more, _ := os.ReadFile(path)
				text += string(more)
			}
		})
		return text
	}
	if n := lift(dual()); n != 0 || tables() != "" {
		t.Errorf("wrote %d into tables %q", n, tables())
	}
	h.sh("iptables -P FORWARD DROP")
	want := dual()
	want.Masquerade = false
	for _, n := range []int{4, 0} {
		if got := lift(dual()); got != n || tables() != "filter\n" {
			t.Errorf("wrote %d, want %d, into tables %q", got, n, tables())
		}
	}
	if got := h.text(ipfam.V4); got != text(want, ipfam.V4) {
		t.Errorf("got\n%s", got)
	}
	h.sh("iptables -F FORWARD")
	if n := lift(dual()); n != 1 || h.text(ipfam.V4) != text(want, ipfam.V4) {
		t.Errorf("wrote %d:\n%s", n, h.text(ipfam.V4))
	}
	other := dual()
	other.Network[ipfam.V4], other.Subnet[ipfam.V4] = prefix("10.245.0.0/16"), prefix("10.245.3.0/24")
	lift(other)
	h.sh("iptables -P FORWARD ACCEPT")
	lift(dual())
	if got := h.text(ipfam.V4); strings.Contains(got, "10.244.") || strings.Count(got, "10.245.0.0/16") != 2 || !strings.Contains(got, "-A FORWARD") {
		t.Errorf("of another daemon is left\n%s", got)
	}
	lift(other)
	if got := h.text(ipfam.V4); got != "" {
		t.Errorf("left\n%s", got)
	}
}
