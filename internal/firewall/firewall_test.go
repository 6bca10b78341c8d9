package firewall

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/nstest"
)

// host is a namespace with a firewall.
type host struct {
	*nstest.NS
	t *testing.T
}

func newHost(t *testing.T) host {
	t.Helper()
	// Legacy programs must not meet the lock file of the host.
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
	return host{nstest.New(t), t}
}

// drops returns what drops a packet in words: where, the number of the rule and
// what is known of it.
func (h host) drops(kind string, p Packet) string {
	h.t.Helper()
	var found []Finding
	h.Do(func() {
		if kind == "legacy" {
			table, err := ReadLegacy(p.Family, "filter")
			if err != nil {
				h.t.Error(err)
			}
			found = table.Drops(p)
			return
		}
		conn, err := nftables.New()
		if err != nil {
			h.t.Error(err)
			return
		}
		rules, err := ReadNFTables(conn)
		if err != nil {
			h.t.Error(err)
		}
		found = rules.Drops(p)
	})
	var words []string
	for _, f := range found {
		s := f.In
		if f.Rule == 0 {
			s += " policy"
		}
		for _, flag := range []struct {
			name string
			set  bool
		}{{"certain", f.Certain}, {"not understood", !f.Understood}, {"may be accepted", f.MayAccept}} {
			if flag.set {
				s += ", " + flag.name
			}
		}
		words = append(words, s)
	}
	return strings.Join(words, "; ")
}

// A tunnel's packet as a node receives it.
func tunnel(f ipfam.Family) Packet {
	return Packet{Family: f, Hook: Input, In: "eth0", Protocol: 17, Port: 8472}
}

func TestDropsOfAPacket(t *testing.T) {
	tests := []struct{ name, rules, want string }{
		{"no rules", "", ""},
		{"the policy", "-P INPUT DROP", "INPUT policy, certain"},
		{"the policy of another hook", "-P FORWARD DROP", ""},
		{"the port", "-A INPUT -p udp --dport 8472 -j DROP", "INPUT, certain"},
		{"the port is accepted", "-P INPUT DROP;-A INPUT -p udp --dport 8472 -j ACCEPT", ""},
		{"another port is accepted", "-P INPUT DROP;-A INPUT -p udp --dport 53 -j ACCEPT", "INPUT policy, certain"},
		{"all other ports", "-A INPUT -p udp ! --dport 53 -j DROP", "INPUT, certain"},
		{"another protocol", "-A INPUT -p tcp -j DROP;-A INPUT -p tcp --dport 8472 -j DROP", ""},
		{"the protocol", "-A INPUT -p udp -j REJECT", "INPUT, certain"},
		{"the interface", "-A INPUT -i eth0 -j DROP", "INPUT, certain"},
		{"interfaces with this beginning", "-A INPUT -i eth+ -j DROP", "INPUT, certain"},
		{"another interface", "-A INPUT -i eth -j DROP;-A INPUT -i eth01 -j DROP;-A INPUT -i lo+ -j DROP", ""},
		{"all but an interface", "-A INPUT ! -i lo -j DROP", "INPUT, certain"},
		{"an address that is not known", "-A INPUT -s NETWORK -j DROP", "INPUT"},
		{"an accept of an address that is not known", "-A INPUT -s NETWORK -j ACCEPT;-A INPUT -j DROP", "INPUT, certain, may be accepted"},
		{"ports that are not understood", "-A INPUT -p udp -m multiport --dports 53,8472 -j DROP", "INPUT, not understood"},
		{"a range of ports", "-A INPUT -p udp --dport 8000:9000 -j DROP", "INPUT, not understood"},
		{"a source port", "-A INPUT -p udp --sport 53 -j DROP", "INPUT, not understood"},
		{"a condition that is not understood, of other packets", "-A INPUT -p tcp -m multiport --dports 53,8472 -j DROP", ""},
		{"behind a jump", "-N X;-A X -i eth0 -j DROP;-A INPUT -p udp -j X", "X, certain"},
		{"behind a jump of other packets", "-N X;-A X -i eth0 -j DROP;-A INPUT -p tcp -j X", ""},
		{"behind a return", "-N X;-A X -i eth0 -j RETURN;-A X -j DROP;-A INPUT -j X", ""},
	}
	program := ipfam.Pair[string]{"iptables", "ip6tables"}
	network := ipfam.Pair[string]{"192.0.2.0/24", "2001:db8::/64"}
	for _, tt := range tests {
		for _, kind := range []string{"nft", "legacy"} {
			for _, f := range ipfam.All() {
				t.Run(fmt.Sprintf("%s, %s %s", tt.name, f, kind), func(t *testing.T) {
					h := newHost(t)
					for rule := range strings.SplitSeq(strings.ReplaceAll(tt.rules, "NETWORK", network[f]), ";") {
						if rule != "" {
							h.Tool(program[f]+"-"+kind, rule)
						}
					}
					if got := h.drops(kind, tunnel(f)); got != tt.want {
						t.Errorf("got %q, want %q", got, tt.want)
					}
				})
			}
		}
	}
}

func TestDropsInTheWordsOfNFT(t *testing.T) {
	for rules, want := range map[string]string{
		"udp dport vmap { 53 : accept };drop":           "in, certain, may be accepted",
		"meta nfproto ipv6 drop":                        "",
		"meta nfproto ipv4 udp dport 8472 drop":         "in, certain",
		"udp dport != 53 drop":                          "in, certain",
		"iifname eth* udp dport 8472 log drop":          "in, certain",
		"udp dport { 53, 8472 } drop":                   "in, not understood",
		"ct state invalid drop":                         "in, not understood",
		"udp dport 8472 fib daddr type local drop":      "in, not understood",
		"meta l4proto udp socket transparent 1 drop":    "in, not understood",
		"ip saddr & 255.0.0.255 == 10.0.0.1 drop":       "in, not understood",
		"ip saddr 10.0.0.0/8 tcp dport 22 counter drop": "",
	} {
		h := newHost(t)
		h.Tool("nft", "add table inet mine")
		h.Tool("nft", "add chain inet mine in { type filter hook input priority 10 ; }")
		for rule := range strings.SplitSeq(rules, ";") {
			h.Tool("nft", "add rule inet mine in "+rule)
		}
		if got := h.drops("nft", tunnel(ipfam.V4)); got != want {
			t.Errorf("%s: got %q, want %q", rules, got, want)
		}
	}
}

// Others may write a table between the two questions of a look at it.
func TestALookAtALegacyTableThatChanges(t *testing.T) {
	h := newHost(t)
	h.Tool("iptables-legacy", "-P FORWARD DROP")
	network := netip.MustParsePrefix("10.244.0.0/16")
	h.Do(func() {
		cmd := exec.Command("sh", "-c", `while iptables-legacy -I FORWARD -i eth9 -j ACCEPT && iptables-legacy -D FORWARD 1; do :; done`)
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		for range 20_000 {
			table, err := ReadLegacy(ipfam.V4, "filter")
			if found := Forwarded(network, table); err != nil || len(found) != 1 {
				t.Errorf("got %v, %v", found, err)
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
		for _, family := range ipfam.All() {
			w := walk{packet: tunnel(family).known()}
			w.drops(legacyChain{Legacy{family: family, blob: blob}, forward, "FORWARD", 0})
		}
	})
}
