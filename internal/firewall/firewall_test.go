package firewall

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
	var words []string
	for _, f := range h.find(kind, p) {
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

// find returns what drops a packet.
func (h host) find(kind string, p Packet) (found []Finding) {
	h.t.Helper()
	h.Do(func() {
		if kind == "legacy" {
			tables, err := ReadLegacyFilters(p.Family)
			if err != nil {
				h.t.Error(err)
			}
			found = Drops(p, false, tables...)
			return
		}
		rules, err := ReadNFTables(0)
		if err != nil {
			h.t.Error(err)
			return
		}
		defer rules.Close()
		found = Drops(p, false, rules)
	})
	return found
}

// A tunnel's packet as a node receives it.
func tunnel(f ipfam.Family) Packet {
	return Packet{Family: f, Hooks: Inward, In: Interface{Name: "eth0"}, Protocol: 17, Port: 8472}
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
		{"several ports", "-A INPUT -p udp -m multiport --dports 53,8472 -j DROP", "INPUT, certain"},
		{"a range of ports", "-A INPUT -p udp --dport 8000:9000 -j DROP", "INPUT, certain"},
		{"a source port", "-A INPUT -p udp --sport 53 -j DROP", "INPUT"},
		{"a condition that is not understood", "-A INPUT -p udp -m length --length 100 -j DROP", "INPUT, not understood"},
		{"a condition that is not understood, of other packets", "-A INPUT -p tcp -m length --length 100 -j DROP", ""},
		{"connections that exist", "-P INPUT DROP;-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "INPUT policy, certain"},
		{"connections that are new", "-A INPUT -m conntrack --ctstate NEW -j DROP", "INPUT, certain"},
		{"all but new connections", "-A INPUT -m conntrack ! --ctstate NEW -j DROP;-A INPUT -m state --state INVALID -j DROP", ""},
		{"a mark that nothing sets", "-A INPUT -m mark --mark 0x4000/0x4000 -j DROP", ""},
		{"a mark that is set", "-t mangle -A PREROUTING -p udp -j MARK --set-mark 7;-A INPUT -m mark --mark 7 -j DROP", "INPUT"},
		{"a connection that is not followed", "-t raw -A PREROUTING -p udp -j CT --notrack;-A INPUT -m conntrack --ctstate NEW -j DROP", "INPUT"},
		{"the table raw", "-t raw -A PREROUTING -i eth0 -p udp --dport 8472 -j DROP", "PREROUTING, certain"},
		{"the table mangle", "-t mangle -P PREROUTING DROP", "PREROUTING policy, certain"},
		{"the table of what leaves", "-t raw -P OUTPUT DROP;-t mangle -P POSTROUTING DROP", ""},
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
		"udp dport vmap { 53 : accept };drop":                          "in, certain",
		"udp dport vmap { 8472 : accept };drop":                        "",
		"udp dport vmap { 8472 : drop }":                               "in, certain",
		"ct state vmap { established : accept, new : jump more };drop": "in, certain",
		"ct state { established, related } accept;drop":                "in, certain",
		"ct state established,related accept;drop":                     "in, certain",
		"ct state new accept;drop":                                     "",
		"ct status dnat accept;drop":                                   "in, certain",
		"udp dport { 8000-9000 } drop":                                 "in, certain",
		"udp dport 8000-9000 drop":                                     "in, certain",
		"udp dport != 8000-9000 drop":                                  "",
		"udp dport > 8472 drop":                                        "",
		"iifname { lo, eth0 } drop":                                    "in, certain",
		"iifname != { lo, eth0 } drop":                                 "",
		"iif lo drop":                                                  "in",
		"meta protocol ip drop":                                        "in, certain",
		"udp dport . ip saddr { 8472 . 10.0.0.1 } drop":                "in, not understood",
		"limit rate 1/second accept;drop":                              "in, certain, may be accepted",
		"meta nfproto ipv6 drop":                                       "",
		"meta nfproto ipv4 udp dport 8472 drop":                        "in, certain",
		"udp dport != 53 drop":                                         "in, certain",
		"iifname eth* udp dport 8472 log drop":                         "in, certain",
		"udp dport { 53, 8472 } drop":                                  "in, certain",
		"ct state invalid drop":                                        "",
		"udp dport 8472 fib daddr type local drop":                     "in, not understood",
		"meta l4proto udp socket transparent 1 drop":                   "in, not understood",
		"ip saddr & 255.0.0.255 == 10.0.0.1 drop":                      "in, not understood",
		"ip saddr 10.0.0.0/8 tcp dport 22 counter drop":                "",
	} {
		h := newHost(t)
		h.Tool("nft", "add table inet mine")
		h.Tool("nft", "add chain inet mine more")
		h.Tool("nft", "add chain inet mine in { type filter hook input priority 10 ; }")
		for rule := range strings.SplitSeq(rules, ";") {
			h.Tool("nft", "add rule inet mine in "+rule)
		}
		if got := h.drops("nft", tunnel(ipfam.V4)); got != want {
			t.Errorf("%s: got %q, want %q", rules, got, want)
		}
	}
}

// forwarded are a new packet from a pod to another node's, and one to a pod.
func forwarded() (away, in Packet) {
	own, others := netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("10.244.0.0/16")
	bridge, device := Interface{Name: "cni0"}, Interface{Name: "flannel.1"}
	away = Packet{Hooks: Through, Src: own, Dst: others, In: bridge, Out: device, Protocol: 6}
	in = Packet{Hooks: Through, Src: others, Dst: own, In: device, Out: bridge, Protocol: 6}
	return away, in
}

func TestForwardedPackets(t *testing.T) {
	for _, tt := range []struct{ name, rules, away, in string }{
		{"accepts of the bridge ahead of the policy", "-P FORWARD DROP;-A FORWARD -i cni0 -j ACCEPT;-A FORWARD -o cni0 -j ACCEPT", "", ""},
		{"an accept of one direction", "-P FORWARD DROP;-A FORWARD -i cni0 -j ACCEPT", "", "FORWARD policy, certain"},
		{"a verdict on the interface ahead of an accept", "-A FORWARD -i flannel.1 -j DROP;-A FORWARD -o cni0 -j ACCEPT", "", "FORWARD, certain"},
		{"an accept of another bridge", "-P FORWARD DROP;-A FORWARD -i docker0 -j ACCEPT;-A FORWARD -o docker0 -j ACCEPT", "FORWARD policy, certain", "FORWARD policy, certain"},
		{"an accept of some addresses", "-P FORWARD DROP;-A FORWARD -s 10.244.1.7 -j ACCEPT", "FORWARD policy, certain, may be accepted", "FORWARD policy, certain, may be accepted"},
		{"what pods send is dropped early", "-t raw -A PREROUTING -i cni0 -j DROP", "PREROUTING, certain", ""},
		{"what pods send is dropped late", "-t mangle -A POSTROUTING -o flannel.1 -j DROP", "POSTROUTING, certain", ""},
		{"packets of this host", "-P INPUT DROP;-P OUTPUT DROP;-t raw -P OUTPUT DROP", "", ""},
	} {
		for _, kind := range []string{"nft", "legacy"} {
			t.Run(tt.name+", "+kind, func(t *testing.T) {
				h := newHost(t)
				for rule := range strings.SplitSeq(tt.rules, ";") {
					h.Tool("iptables-"+kind, rule)
				}
				away, in := forwarded()
				if got := h.drops(kind, away); got != tt.away {
					t.Errorf("from pods: got %q, want %q", got, tt.away)
				}
				if got := h.drops(kind, in); got != tt.in {
					t.Errorf("to pods: got %q, want %q", got, tt.in)
				}
			})
		}
	}
}

func TestDropsAtADevice(t *testing.T) {
	out := Packet{Hooks: Outward, Out: Interface{Name: "eth0"}, Protocol: 17, Port: 8472}
	for _, tt := range []struct{ chain, rule, in, out string }{
		{"hook ingress device eth0 priority 0", "udp dport 8472 drop", "c, certain", ""},
		{"hook ingress device eth0 priority 0", "ip saddr 203.0.113.0/24 drop", "c", ""},
		{"hook ingress device eth1 priority 0", "drop", "", ""},
		{"hook ingress devices = { eth0, eth1 } priority 0", "udp dport 8472 drop", "c, certain", ""},
		{"hook egress device eth0 priority 0", "udp dport 8472 drop", "", "c, certain"},
		{"hook egress device eth0 priority 0", "meta protocol ip6 drop", "", ""},
	} {
		t.Run(tt.chain+" "+tt.rule, func(t *testing.T) {
			h := newHost(t)
			h.AddUplink("eth0", "192.0.2.1/24")
			h.AddUplink("eth1", "198.51.100.1/24")
			h.Tool("nft", "add table netdev x")
			h.Tool("nft", "add chain netdev x c { type filter "+tt.chain+" ; }")
			h.Tool("nft", "add rule netdev x c "+tt.rule)
			if got := h.drops("nft", tunnel(ipfam.V4)); got != tt.in {
				t.Errorf("inward: got %q, want %q", got, tt.in)
			}
			if got := h.drops("nft", out); got != tt.out {
				t.Errorf("outward: got %q, want %q", got, tt.out)
			}
		})
	}
}

func TestDropsOfWhatThisHostSends(t *testing.T) {
	out := Packet{Hooks: Outward, Out: Interface{Name: "eth0"}, Protocol: 17, Port: 8472}
	for rules, want := range map[string]string{
		"-A OUTPUT -p udp --dport 8472 -j DROP":                     "OUTPUT, certain",
		"-A OUTPUT -o eth1 -j DROP":                                 "",
		"-t raw -A OUTPUT -o eth0 -j DROP":                          "OUTPUT, certain",
		"-t mangle -A POSTROUTING -o eth0 -p udp -j DROP":           "POSTROUTING, certain",
		"-P OUTPUT DROP;-A OUTPUT -m udp -p udp -j ACCEPT":          "",
		"-P OUTPUT DROP;-A OUTPUT -m owner --uid-owner 0 -j ACCEPT": "OUTPUT policy, certain, may be accepted",
	} {
		for _, kind := range []string{"nft", "legacy"} {
			h := newHost(t)
			for rule := range strings.SplitSeq(rules, ";") {
				h.Tool("iptables-"+kind, rule)
			}
			if got := h.drops(kind, out); got != want {
				t.Errorf("%s, %s: got %q, want %q", rules, kind, got, want)
			}
		}
	}
}

// Whoever reads a finding finds the rule, and can copy a command.
func TestAFindingInWords(t *testing.T) {
	for _, tt := range []struct{ tool, rule, where, pass string }{
		{
			"iptables-nft", "-A INPUT -i eth0 -p udp --dport 8472 -j DROP",
			"chain INPUT of table ip filter, rule 1: -i eth0 -p udp --dport 8472 -j DROP",
			"iptables-nft -I INPUT -i eth0 -p udp --dport 8472 -j ACCEPT",
		},
		{
			"iptables-legacy", "-t raw -A PREROUTING -p udp ! --dport 53:99 -j DROP",
			"chain PREROUTING of table raw of iptables-legacy, rule 1: -p udp ! --dport 53:99 -j DROP",
			"iptables-legacy -t raw -I PREROUTING -i eth0 -p udp --dport 8472 -j ACCEPT",
		},
		{
			"nft", "add table inet x;add chain inet x c { type filter hook input priority 5 @ };add rule inet x c iifname eth* udp dport 8000-9000 reject",
			"chain c of table inet x, rule with handle 2: iifname eth* udp dport 8000-9000 reject",
			"nft insert rule inet x c iifname eth0 udp dport 8472 accept",
		},
		{
			"nft", "add table inet x;add chain inet x c { type filter hook input priority 5 @ policy drop @ }",
			"chain c of table inet x, its policy is drop", "nft insert rule inet x c iifname eth0 udp dport 8472 accept",
		},
	} {
		h := newHost(t)
		for rule := range strings.SplitSeq(tt.rule, ";") {
			h.Tool(tt.tool, strings.ReplaceAll(rule, "@", ";"))
		}
		kind := strings.TrimPrefix(tt.tool, "iptables-")
		found := h.find(kind, tunnel(ipfam.V4))
		if len(found) != 1 {
			t.Fatalf("%s: got %+v", tt.rule, found)
		}
		f := found[0]
		where, command := fmt.Sprintf("%s, %s", f.Base, f.Where()), f.Pass(tunnel(ipfam.V4))
		if where != tt.where || command != tt.pass {
			t.Errorf("got %q, %q, want %q, %q", where, command, tt.where, tt.pass)
		}
		h.Do(func() {
			if out, err := exec.Command("sh", "-ec", command).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
		})
		if got := h.drops(kind, tunnel(ipfam.V4)); got != "" {
			t.Errorf("after %s: got %q", command, got)
		}
	}
}

// Rules in firewalld's chains are lost when it reloads.
func TestFirewalldOpensThePort(t *testing.T) {
	for _, zones := range []string{"INPUT_ZONES", "filter_INPUT_ZONES"} {
		h := newHost(t)
		for _, command := range []string{
			"add table inet firewalld", "add chain inet firewalld " + zones, "add chain inet firewalld in { type filter hook input priority 10 ; }",
			"add rule inet firewalld in iifname lo accept", "add rule inet firewalld in jump " + zones, "add rule inet firewalld in reject with icmpx type admin-prohibited",
		} {
			h.Tool("nft", command)
		}
		found := h.find("nft", tunnel(ipfam.V4))
		if len(found) != 1 || found[0].Pass(tunnel(ipfam.V4)) != "firewall-cmd --permanent --add-port=8472/udp && firewall-cmd --reload" {
			t.Errorf("%s: got %+v", zones, found)
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
			if found := Forwarded(network, "", table); err != nil || len(found) != 1 {
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
			w := walk{packet: tunnel(family).at(Input)}
			w.drops(legacyChain{Legacy{family: family, blob: blob}, forward, "FORWARD", 0})
		}
	})
}
