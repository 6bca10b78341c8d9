package iptables

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/nstest"
	"flannel/ipmasq"
)

// legacyHost is a namespace whose rules are made by the legacy programs.
func legacyHost(t *testing.T) host {
	ownLock(t)
	return host{NS: nstest.New(t), t: t, suffix: "-" + string(Legacy)}
}

// blocked returns what drops in legacy tables.
func (h host) blocked(kept bool) []string {
	h.t.Helper()
	var lines []string
	var err error
	h.Do(func() { lines, err = LegacyBlocked(dual(), kept) })
	if err != nil {
		h.t.Fatal(err)
	}
	return lines
}

// firewalldWithLegacy are rules of firewalld. The zone of packets from elsewhere
// rejects, whatever the zone of the overlay does.
func firewalldWithLegacy(zone ...string) []string {
	return append(append([]string{"-N FWD_public", "-A FWD_public -j REJECT", "-N FORWARD_IN_ZONES"}, zone...),
		"-A FORWARD_IN_ZONES -g FWD_public",
		"-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT", "-A FORWARD -j FORWARD_IN_ZONES", "-A FORWARD -j REJECT")
}

func TestLegacyBlockedByFirewalld(t *testing.T) {
	for f, network := range ipfam.Prefixes(dual().Network) {
		for _, test := range []struct {
			zone []string
			want string
		}{
			{nil, "let them pass with: firewall-cmd --permanent --zone=trusted --add-source=" + network.String() + " &&"},
			{[]string{"-A FORWARD_IN_ZONES -s " + network.String() + " -j ACCEPT"}, ""},
		} {
			h := legacyHost(t)
			for _, rule := range firewalldWithLegacy(test.zone...) {
				h.sh(names[f] + " " + rule)
			}
			if got := strings.Join(h.blocked(true), "\n"); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		}
	}
}

func TestLegacyBlocked(t *testing.T) {
	const refuse = "-P FORWARD DROP"
	jump := []string{"-N FLANNEL-FWD", "-A FORWARD -m comment --comment flanneld -j FLANNEL-FWD"}
	tests := map[string]struct {
		rules []string
		want  bool
	}{
		"no rules":                     {nil, false},
		"an accepting policy":          {[]string{"-P FORWARD ACCEPT"}, false},
		"the policy":                   {[]string{refuse}, true},
		"the policy, helped":           {[]string{refuse, "-A FORWARD -s NETWORK -j ACCEPT", "-A FORWARD -d NETWORK -j ACCEPT"}, false},
		"the policy, half helped":      {[]string{refuse, "-A FORWARD -s NETWORK -j ACCEPT"}, true},
		"the policy, all accepted":     {[]string{refuse, "-A FORWARD -m comment --comment all -j ACCEPT"}, false},
		"an accept of other traffic":   {[]string{refuse, "-A FORWARD -i docker0 -j ACCEPT", "-A FORWARD ! -s NETWORK -j ACCEPT", "-A FORWARD -p tcp -j ACCEPT", "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT"}, true},
		"a rule that rejects all":      {[]string{"-A FORWARD -j REJECT"}, true},
		"a rule that drops all":        {[]string{"-A FORWARD -j DROP"}, true},
		"an accept after the drop":     {[]string{"-A FORWARD -j DROP", "-A FORWARD -j ACCEPT"}, true},
		"a drop of other traffic":      {[]string{"-A FORWARD ! -s NETWORK ! -d NETWORK -j DROP"}, false},
		"a drop of the network":        {[]string{"-A FORWARD -d NETWORK -j DROP"}, true},
		"an accept behind a jump":      {[]string{refuse, "-N X", "-A X -j RETURN", "-N Y", "-A Y -j ACCEPT", "-A FORWARD -j X", "-A FORWARD -g Y"}, false},
		"a jump that does not return":  {[]string{"-N X", "-A X -p tcp", "-A FORWARD -g X", "-A FORWARD -j DROP"}, false},
		"a jump that returns":          {[]string{"-N X", "-A FORWARD", "-A FORWARD -j X", "-A FORWARD -j DROP"}, true},
		"our own jump":                 {append([]string{refuse, "-N DOCKER", "-A FORWARD -j DOCKER"}, jump...), false},
		"our own jump, too late":       {append([]string{"-A FORWARD -j REJECT"}, jump...), true},
		"a drop of another base chain": {[]string{"-P INPUT DROP", "-P OUTPUT DROP"}, false},
	}
	for name, tt := range tests {
		for f, network := range ipfam.Prefixes(dual().Network) {
			t.Run(name+" over "+f.String(), func(t *testing.T) {
				h := legacyHost(t)
				for _, rule := range tt.rules {
					h.sh(names[f] + " " + strings.ReplaceAll(rule, "NETWORK", network.String()))
				}
				lines := h.blocked(true)
				if tt.want != (len(lines) == 1) || tt.want && !strings.Contains(lines[0], names[f]+"-legacy -I FORWARD -s "+network.String()+" -j ACCEPT") {
					t.Errorf("got %q", lines)
				}
			})
		}
	}
}

// A look makes no table: iptables-nft would complain of it.
func TestALookAtLegacyTablesMakesNone(t *testing.T) {
	h := legacyHost(t)
	h.sh("iptables -t nat -A POSTROUTING -j ACCEPT")
	look := func() {
		h.blocked(false)
		notice := &LegacyNotice{Log: slog.New(slog.DiscardHandler)}
		h.Do(func() { _, _ = notice.Remove(t.Context(), dual()) })
	}
	look()
	for f, want := range (ipfam.Pair[string]{"nat\n", ""}).Each() {
		var got []byte
		h.Do(func() { got, _ = os.ReadFile(legacyTables[f]) })
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

			lines := h.blocked(false)
			if policy == "DROP" && (len(lines) != 1 || !strings.Contains(lines[0], "FLANNEL-FWD, which nobody restores; let them pass with: iptables-legacy -I FORWARD")) {
				t.Errorf("got %q", lines)
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
			for _, path := range legacyTables.Each() {
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
	if got := h.text(ipfam.V4); got != Text(want, ipfam.V4) {
		t.Errorf("got\n%s", got)
	}
	h.sh("iptables -F FORWARD")
	if n := lift(dual()); n != 1 || h.text(ipfam.V4) != Text(want, ipfam.V4) {
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

// Others may write a table between the two questions of a look at it.
func TestALookAtALegacyTableThatChanges(t *testing.T) {
	h := legacyHost(t)
	h.sh("iptables -P FORWARD DROP")
	h.Do(func() {
		cmd := exec.Command("sh", "-c", `while iptables-legacy -I FORWARD -i eth9 -j ACCEPT && iptables-legacy -D FORWARD 1; do :; done`)
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		for range 20_000 {
			if lines, err := LegacyBlocked(dual(), true); err != nil || len(lines) != 1 {
				t.Errorf("got %q, %v", lines, err)
				break
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func FuzzLegacyTable(f *testing.F) {
	f.Add(make([]byte, 300), 0)
	f.Fuzz(func(_ *testing.T, blob []byte, forward int) {
		for i, network := range ipfam.Prefixes(dual().Network) {
			legacyTable{family: i, blob: blob, forward: forward}.drops(network, false)
		}
	})
}
