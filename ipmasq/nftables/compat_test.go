package nftables

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
	"flannel/ipmasq/keeper"
)

// forwardRules are the commands with which flannel makes its rules of
// forwarding, without the program.
func forwardRules(network string) []string {
	const comment = " -m comment --comment 'flanneld forward' -j "
	return []string{
		"-N FLANNEL-FWD",
		"-A FORWARD" + comment + "FLANNEL-FWD",
		"-A FLANNEL-FWD -s " + network + comment + "ACCEPT",
		"-A FLANNEL-FWD -d " + network + comment + "ACCEPT",
	}
}

var programs = ipfam.Pair[string]{"iptables-nft", "ip6tables-nft"}

// iptables runs the programs of both families with each of these lines.
func (h host) iptables(lines ...string) {
	h.t.Helper()
	for _, program := range programs {
		for _, line := range lines {
			h.shell(program + " " + line)
		}
	}
}

func (h host) shell(command string) string {
	h.t.Helper()
	var out []byte
	var err error
	h.Do(func() { out, err = exec.Command("sh", "-c", command).CombinedOutput() })
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// saved returns what the programs list of the table filter.
func (h host) saved() string {
	h.t.Helper()
	return h.shell("iptables-nft -S; ip6tables-nft -S; iptables-nft-save -t filter | grep -v ^#; ip6tables-nft-save -t filter | grep -v ^#")
}

// kernel returns the rules of forwarding as nft shows the kernel's expressions.
func (h host) kernel() string {
	h.t.Helper()
	// The numbers of the rules differ.
	return h.shell(`nft --debug=netlink list ruleset 2>&1 | grep -A8 -E '^ip6? filter' | sed -E 's/^(ip6? filter \S+).*/\1/'`)
}

func (h host) both(c ipmasq.Config) ipmasq.Changes {
	h.t.Helper()
	changes, err := keeper.Several{h.driver, NewCompat(h.driver, ipmasq.Filter)}.Apply(h.t.Context(), c)
	if err != nil {
		h.t.Fatal(err)
	}
	return changes
}

func TestForwardRulesAreThoseOfIptables(t *testing.T) {
	theirs, ours := newHost(t), newHost(t)
	c := dual()
	c.Network[ipfam.V4], c.Subnet[ipfam.V4] = prefix("10.240.0.0/13"), prefix("10.244.17.0/24")
	const policy = "-P FORWARD DROP"
	for f, network := range ipfam.Prefixes(c.Network) {
		for _, line := range append([]string{policy}, forwardRules(network.String())...) {
			theirs.shell(programs[f] + " " + line)
		}
	}
	ours.iptables(policy)
	if n := ours.both(c)[ipmasq.Filter].Put; n != 2*(4+3) { // those of our table, too
		t.Errorf("%d written", n)
	}
	if got, want := ours.saved(), theirs.saved(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	ours.Tool("nft", "delete table ip flannel-ipv4; delete table ip6 flannel-ipv6")
	if got, want := ours.kernel(), theirs.kernel(); got != want || !strings.Contains(got, "match name comment") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// The programs find, and delete, each of them.
	for f, network := range ipfam.Prefixes(c.Network) {
		for _, line := range forwardRules(network.String())[1:] {
			ours.shell(programs[f] + " " + strings.Replace(line, "-A", "-C", 1))
			ours.shell(programs[f] + " " + strings.Replace(line, "-A", "-D", 1))
		}
		ours.shell(programs[f] + " -X FLANNEL-FWD")
	}
}

func TestForwardRulesOfFlannelStayWhereTheyAre(t *testing.T) {
	h := newHost(t)
	for f, network := range ipfam.Prefixes(dual().Network) {
		for _, line := range append(forwardRules(network.String()), "-A FORWARD -i eth9 -j DROP") {
			h.shell(programs[f] + " " + line)
		}
	}
	numbers := func() string { return h.shell("nft -a list table ip filter; nft -a list table ip6 filter") }
	before := numbers()
	h.both(dual())
	if after := numbers(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

func TestForwardRulesNeedAChainToBeIn(t *testing.T) {
	h := newHost(t)
	h.Tool("nft", "add table ip filter; add chain ip filter INPUT { type filter hook input priority 0; }; add chain ip filter FORWARD")
	before := h.ruleset()
	h.both(dual())
	h.Tool("nft", "delete table ip flannel-ipv4; delete table ip6 flannel-ipv6")
	if got := h.ruleset(); got != before {
		t.Errorf("got\n%s\nwant\n%s", got, before)
	}
}

func TestForwardRulesHeal(t *testing.T) {
	h := newHost(t)
	h.iptables("-P FORWARD DROP")
	h.both(dual())
	want := h.saved()
	jump := forwardRules("")[1]
	for _, lines := range [][]string{
		{"-F FORWARD"},
		{"-F"},
		{"-F", "-X"},
		{"-F FLANNEL-FWD"},
		{jump},
		{"-I FORWARD -j FLANNEL-FWD"},
		{strings.Replace(jump, "-A", "-D", 1), "-A FORWARD -j FLANNEL-FWD"},
	} {
		h.iptables(lines...)
		if changes := h.both(dual()); len(changes) == 0 {
			t.Errorf("%s: nothing written", lines)
		}
		if got := h.saved(); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", lines, got, want)
		}
		if changes := h.both(dual()); len(changes) > 0 {
			t.Errorf("%s: the second time wrote %v", lines, changes)
		}
	}
	// Others are not touched, and a jump keeps its place.
	h.iptables("-A FORWARD -j REJECT", "-A FLANNEL-FWD -i eth9 -j DROP", "-A FORWARD -i eth9 -j FLANNEL-FWD")
	want = h.saved()
	if changes := h.both(dual()); len(changes) > 0 || h.saved() != want {
		t.Errorf("wrote %v:\n%s", changes, h.saved())
	}
}

func TestForwardRulesOfTwoDaemons(t *testing.T) {
	h := newHost(t)
	h.iptables("-P FORWARD DROP", "-A FORWARD -i eth9 -j DROP")
	before := h.saved()
	h.both(dual())
	alone := h.saved()
	h.both(second())
	h.both(dual().None())
	if got := h.saved(); strings.Contains(got, "10.244") || strings.Count(got, "-d 10.245.0.0/16") != 2 || strings.Count(got, "-j FLANNEL-FWD") != 4 {
		t.Errorf("got\n%s", got)
	}
	h.both(dual())
	h.both(second().None())
	if got := h.saved(); got != alone {
		t.Errorf("got\n%s\nwant\n%s", got, alone)
	}
	// A daemon that is not to accept what is forwarded has none.
	c := dual()
	c.Forward = false
	h.both(c)
	if got := h.saved(); got != before {
		t.Errorf("got\n%s\nwant\n%s", got, before)
	}
}

// A kernel without nft_compat refuses the comment as it refuses any extension
// that it does not have.
func TestForwardRulesWithoutComments(t *testing.T) {
	h := newHost(t)
	h.iptables("-P FORWARD DROP")
	compat := NewCompat(h.driver, ipmasq.Filter)
	compat.match = "nosuchmatch"
	for want := 6; want >= 0; want -= 6 {
		changes, err := compat.Apply(t.Context(), dual())
		if n := changes[ipmasq.Filter].Put; err != nil || n != want+want/3 {
			t.Fatalf("wrote %v, %v", changes, err)
		}
	}
	want := []string{"-P INPUT ACCEPT", "-P FORWARD DROP", "-P OUTPUT ACCEPT", "-N FLANNEL-FWD",
		"-A FORWARD -j FLANNEL-FWD", "-A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT", "-A FLANNEL-FWD -d 10.244.0.0/16 -j ACCEPT"}
	if got := strings.Split(strings.TrimSpace(h.shell("iptables-nft -S")), "\n"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// Comments come with the module, and the rules keep their place.
	compat.match = commentMatch
	h.iptables("-A FORWARD -j REJECT")
	if _, err := compat.Apply(t.Context(), dual()); err != nil {
		t.Fatal(err)
	}
	got := h.shell("iptables-nft -S FORWARD")
	if !strings.HasPrefix(got, "-P FORWARD DROP\n-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\n-A FORWARD -j REJECT") {
		t.Errorf("got\n%s", got)
	}
}

func TestAChangeOfForwardIsSeen(t *testing.T) {
	h := newHost(t)
	h.iptables("-P FORWARD DROP", "-N OTHER")
	w := h.watch()
	h.iptables("-A OTHER -j ACCEPT")
	w.next(w.other)
	if len(w.own) > 0 {
		t.Error("an event of another chain counts as ours")
	}
	h.shell("ip6tables-nft -A FORWARD -j OTHER")
	w.next(w.own)
}

// While others change the same chain, the kernel's list of it may lack a rule or
// have it twice.
func TestForwardRulesBesideOthersThatChangeTheChain(t *testing.T) {
	h := newHost(t)
	h.iptables("-P FORWARD DROP")
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "-A FORWARD -s 203.0.113.%d/32 -i eth%d -j ACCEPT\n", i%250, i)
	}
	h.shell("printf '*filter\n" + many.String() + "COMMIT\n' | iptables-nft-restore --noflush")
	h.both(dual())
	var change *exec.Cmd
	h.Do(func() {
		change = exec.Command("sh", "-c", `while iptables-nft -I FORWARD -i eth9 -j ACCEPT && iptables-nft -D FORWARD 1; do :; done`)
		if err := change.Start(); err != nil {
			t.Error(err)
		}
	})
	for range 50 {
		changes, err := NewCompat(h.driver, ipmasq.Filter).Apply(t.Context(), dual())
		if err != nil || len(changes) > 0 {
			t.Errorf("wrote %v, %v", changes, err)
			break
		}
	}
	_ = change.Process.Kill()
	_ = change.Wait()
}

// A chain of ours may hold rules of the user, which name no network.
func TestARuleOfTheUserKeepsTheChain(t *testing.T) {
	h := newHost(t)
	h.iptables("-P FORWARD DROP")
	h.both(dual())
	h.iptables("-A FLANNEL-FWD -i eth9 -j ACCEPT")
	h.both(dual().None())
	for _, program := range programs {
		got := h.shell(program + " -S")
		if !strings.Contains(got, "-A FLANNEL-FWD -i eth9 -j ACCEPT") || !strings.Contains(got, "-j FLANNEL-FWD") || strings.Contains(got, "10") {
			t.Errorf("got\n%s", got)
		}
	}
}
