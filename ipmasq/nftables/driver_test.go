package nftables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/golden"
	"flannel/internal/testkit/nstest"
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

// second is the configuration of another daemon on the same host.
func second() ipmasq.Config {
	c := dual()
	c.Network = ipfam.Pair[netip.Prefix]{prefix("10.245.0.0/16"), prefix("fd00:10:245::/56")}
	c.Subnet = ipfam.Pair[netip.Prefix]{prefix("10.245.3.0/24"), prefix("fd00:10:245:3::/64")}
	return c
}

// host is a namespace with a driver in it.
type host struct {
	*nstest.NS
	t      *testing.T
	driver *Driver
}

func newHost(t *testing.T) host {
	ns := nstest.New(t)
	return host{ns, t, New(Options{Log: slog.New(slog.DiscardHandler), Namespace: int(ns.Namespace)})}
}

func (h host) apply(c ipmasq.Config) ipmasq.Changes {
	h.t.Helper()
	changes, err := h.driver.Apply(h.t.Context(), c)
	if err != nil {
		h.t.Fatal(err)
	}
	return changes
}

func (h host) ruleset() string {
	h.t.Helper()
	return h.Tool("nft", "-n list ruleset")
}

// right fails the test when the tables are not as text has them, or are written
// again.
func (h host) right(c ipmasq.Config, want string) {
	h.t.Helper()
	if got := h.ruleset(); got != want {
		h.t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if again := h.apply(c); len(again) > 0 {
		h.t.Errorf("the second time wrote %v", again)
	}
}

func TestAKernelWithoutNFTablesIsNamed(t *testing.T) {
	for _, err := range []error{unix.EINVAL, fmt.Errorf("dial: %w", unix.EPROTONOSUPPORT)} {
		if got := remedy(err); !strings.Contains(got, "modprobe nf_tables") {
			t.Errorf("%v: got %q", err, got)
		}
	}
	if got := remedy(unix.EPERM); got != "" {
		t.Errorf("without rights: got %q", got)
	}
}

// While nothing has changed, a look costs no reading of tables and sets.
func TestWhatHasNotChangedIsNotReadAgain(t *testing.T) {
	h := newHost(t)
	h.apply(dual())
	h.apply(dual())
	if generation, err := h.driver.Generation(); err != nil || !h.driver.verified.At(generation, dual()) {
		t.Error("what is right is read again")
	}
	if changes := h.apply(second()); len(changes) == 0 {
		t.Error("another configuration was not written")
	}
	h.apply(dual())
	h.apply(dual())
	h.Tool("nft", "delete table ip flannel-ipv4")
	if changes := h.apply(dual()); len(changes) == 0 {
		t.Error("what was deleted was not written")
	}
}

func TestText(t *testing.T) {
	h := newHost(t)
	h.apply(dual())
	golden.Equal(t, h.ruleset(), "testdata/dual.nft")
	h.right(dual(), h.ruleset())
}

func TestExclusions(t *testing.T) {
	h := newHost(t)
	c := dual()
	c.RandomFully, c.Forward = false, false
	c.Exclude = []netip.Prefix{prefix("192.0.2.7/32"), prefix("198.51.96.0/19"), prefix("2001:db8::/32")}
	h.apply(dual())
	h.apply(c)
	golden.Equal(t, h.ruleset(), "testdata/exclude.nft")
	h.right(c, h.ruleset())
}

func TestRemove(t *testing.T) {
	h := newHost(t)
	h.Tool("nft", "add table ip mine")
	before := h.ruleset()
	h.apply(dual())
	h.apply(dual().None())
	h.right(dual().None(), before)
}

func TestHealing(t *testing.T) {
	h := newHost(t)
	h.apply(dual())
	want := h.ruleset()
	lost := []string{
		"flush ruleset",
		"insert rule ip flannel-ipv4 forward ip saddr 10.244.0.0/16 accept",
		"chain ip flannel-ipv4 forward { policy drop; }",
		"flush chain ip flannel-ipv4 forward;delete chain ip flannel-ipv4 forward;add chain ip flannel-ipv4 forward { type filter hook input priority 0; }",
	}
	for _, table := range []string{"ip flannel-ipv4", "ip6 flannel-ipv6"} {
		lost = append(lost, "delete table "+table)
		for _, chain := range []string{" postrtg", " forward"} {
			flush := "flush chain " + table + chain
			lost = append(lost, flush, flush+";delete chain "+table+chain)
		}
	}
	for _, commands := range lost {
		h.Tool("nft", commands)
		if changes := h.apply(dual()); len(changes) == 0 {
			t.Errorf("%s: nothing written", commands)
		}
		h.sameText(commands, want)
	}
	h.deleteEachRule(want)
}

// deleteEachRule deletes every rule once.
func (h host) deleteEachRule(want string) {
	h.t.Helper()
	list := regexp.MustCompile(`(?m)^table (\S+ \S+) \{|chain (\w+) \{|" # handle (\d+)$`)
	for n := 0; ; n++ {
		table, chain, rules := "", "", []string{}
		for _, m := range list.FindAllStringSubmatch(h.Tool("nft", "-a list ruleset"), -1) {
			switch {
			case m[1] != "":
				table = m[1]
			case m[2] != "":
				chain = m[2]
			default:
				rules = append(rules, table+" "+chain+" handle "+m[3])
			}
		}
		if n == len(rules) {
			return
		}
		h.Tool("nft", "delete rule "+rules[n])
		h.apply(dual())
		h.sameText(rules[n], want)
	}
}

// sameText compares without the order of tables and chains.
func (h host) sameText(what, want string) {
	h.t.Helper()
	if got := sorted(h.ruleset()); got != sorted(want) {
		h.t.Errorf("%s: got\n%s\nwant\n%s", what, got, sorted(want))
	}
}

// sorted puts the chains of a ruleset into an order of their own; the rules in
// them stay in theirs.
func sorted(ruleset string) string {
	var parts []string
	for table := range strings.SplitSeq(ruleset, "\n}\n") {
		head, body, _ := strings.Cut(strings.TrimSpace(table), "\n")
		for chain := range strings.SplitSeq(body, "\n\t}") {
			parts = append(parts, head+" "+strings.TrimSpace(chain))
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, "\n")
}

func TestTwoDaemonsAndTheUser(t *testing.T) {
	h := newHost(t)
	h.apply(dual())
	h.apply(second())
	h.Tool("nft", `add rule ip flannel-ipv4 postrtg ip saddr 192.0.2.0/24 return comment "mine"`)
	both := h.ruleset()
	h.right(dual(), both)
	h.right(second(), both)
	h.apply(second().None())
	if got := h.ruleset(); strings.Contains(got, "10.245") || strings.Contains(got, "10:245") || !strings.Contains(got, "mine") {
		t.Errorf("got\n%s", got)
	}
	h.right(dual(), h.ruleset())
	h.apply(dual().None())
	got := h.ruleset()
	if strings.Contains(got, "10.244") || strings.Contains(got, "ip6") || !strings.Contains(got, "mine") || !strings.Contains(got, "mark") {
		t.Errorf("got\n%s", got)
	}
}

// What flannel leaves has no comments.
func TestFlannelsRulesGo(t *testing.T) {
	h := newHost(t)
	for _, command := range []string{
		"add table ip flannel-ipv4 { comment \"rules\" ; }",
		"add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority 100 ; }",
		"add chain ip flannel-ipv4 forward { type filter hook forward priority 0 ; }",
		"add rule ip flannel-ipv4 postrtg meta mark 0x4000 return",
		"add rule ip flannel-ipv4 postrtg ip saddr 10.244.9.0/24 ip daddr 10.244.0.0/16 return",
		"add rule ip flannel-ipv4 postrtg ip saddr 10.244.0.0/16 ip daddr 10.244.9.0/24 return",
		"add rule ip flannel-ipv4 postrtg ip saddr != 10.244.9.0/24 ip daddr 10.244.0.0/16 return",
		"add rule ip flannel-ipv4 postrtg ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random",
		"add rule ip flannel-ipv4 postrtg ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade fully-random",
		"add rule ip flannel-ipv4 forward ip saddr 10.244.0.0/16 accept",
		"add rule ip flannel-ipv4 forward ip daddr 10.244.0.0/16 accept",
	} {
		h.Tool("nft", command)
	}
	h.apply(dual())
	got := h.ruleset()
	fresh := newHost(t)
	fresh.apply(dual())
	comment := regexp.MustCompile(`(?m)^\tcomment .*\n`)
	if want := fresh.ruleset(); comment.ReplaceAllString(got, "") != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNetworkOfAnEarlierRun(t *testing.T) {
	h := newHost(t)
	h.apply(second())
	c := dual()
	c.Previous = ipfam.Pair[[]netip.Prefix]{{second().Network[ipfam.V4]}, {second().Network[ipfam.V6]}}
	h.apply(c)
	fresh := newHost(t)
	fresh.apply(dual())
	h.right(c, fresh.ruleset())
}

func TestWhatIptablesLeftGoes(t *testing.T) {
	h := newHost(t)
	write := func(network, subnet string) {
		for _, args := range []string{
			"-t nat -A FLANNEL-POSTRTG -s " + subnet + " -d " + network + " -j RETURN",
			"-t nat -A FLANNEL-POSTRTG ! -s " + network + " -d " + network + " -j MASQUERADE",
			"-A FLANNEL-FWD -s " + network + " -j ACCEPT",
		} {
			h.Tool("iptables-nft", args)
		}
	}
	for _, args := range []string{
		"-t nat -N FLANNEL-POSTRTG", "-t nat -A POSTROUTING -j FLANNEL-POSTRTG", "-N FLANNEL-FWD",
		"-A FORWARD -j FLANNEL-FWD", "-A FORWARD -s 192.0.2.0/24 -j ACCEPT",
		"-t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN",
	} {
		h.Tool("iptables-nft", args)
	}
	write("10.244.0.0/16", "10.244.9.0/24")
	write("10.245.0.0/16", "10.245.9.0/24")
	remove := func(c ipmasq.Config) string {
		for _, table := range ipmasq.Tables() {
			if _, err := NewCompat(h.driver, table).Remove(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		return h.Tool("iptables-nft", "-t nat -S") + h.Tool("iptables-nft", "-S")
	}
	got := remove(dual())
	if strings.Contains(got, "10.244") || strings.Count(got, "10.245") != 5 || strings.Count(got, "-j FLANNEL") != 2 {
		t.Errorf("got\n%s", got)
	}
	got = remove(second())
	want := "-P PREROUTING ACCEPT\n-P INPUT ACCEPT\n-P OUTPUT ACCEPT\n-P POSTROUTING ACCEPT\n" +
		"-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n-A FORWARD -s 192.0.2.0/24 -j ACCEPT\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if again := remove(second()); again != want {
		t.Errorf("again\n%s", again)
	}
}

// watched collects the events of a host.
type watched struct {
	t          *testing.T
	own, other chan struct{}
}

// watch watches until the test ends. The first event of each kind is that of
// the start.
func (h host) watch() watched {
	w := watched{h.t, make(chan struct{}, 100), make(chan struct{}, 100)}
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan error)
	go func() {
		done <- h.driver.Watch(ctx, func() { w.own <- struct{}{} }, func() { w.other <- struct{}{} })
	}()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			h.t.Error(err)
		}
	})
	w.next(w.own)
	w.next(w.other)
	return w
}

func (w watched) next(c chan struct{}) {
	w.t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		w.t.Fatal("no event")
	}
}

func TestWatch(t *testing.T) {
	h := newHost(t)
	w := h.watch()
	h.Tool("nft", "add table ip mine")
	w.next(w.other)
	if len(w.own) > 0 {
		t.Error("an event of another table counts as ours")
	}
	h.apply(dual())
	w.next(w.own)
	h.Tool("nft", "flush ruleset")
	w.next(w.other)
}

func TestGeneration(t *testing.T) {
	h := newHost(t)
	read := func() uint32 {
		n, err := h.driver.Generation()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	first := read()
	if again := read(); again != first {
		t.Errorf("%d becomes %d without a change", first, again)
	}
	h.Tool("nft", "add table ip mine")
	if read() == first {
		t.Error("a change is not seen")
	}
}
