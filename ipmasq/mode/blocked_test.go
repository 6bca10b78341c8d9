package mode

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/nstest"
	"flannel/ipmasq"
	"flannel/ipmasq/nftables"
)

func dual() ipmasq.Config {
	return ipmasq.Config{
		Network:    ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/56")},
		Subnet:     ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.244.17.0/24"), netip.MustParsePrefix("fd00:10:244:3::/64")},
		Masquerade: true, Forward: true, RandomFully: true,
	}
}

// programs are those of legacy iptables.
var programs = ipfam.Pair[string]{"iptables-legacy", "ip6tables-legacy"}

// host is a namespace with rules of others.
type host struct {
	*nstest.NS
	t      *testing.T
	tables *nftables.Driver
}

func newHost(t *testing.T, commands ...string) host {
	t.Helper()
	// Legacy programs must not meet the lock file of the host.
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
	h := host{nstest.New(t), t, nftables.New(nftables.Options{Log: slog.New(slog.DiscardHandler)})}
	for _, command := range commands {
		h.sh(command)
	}
	return h
}

// sh runs a command without quotes.
func (h host) sh(command string) string {
	h.t.Helper()
	name, args, _ := strings.Cut(command, " ")
	return h.Tool(name, args)
}

// lines returns what drops.
func (h host) lines(legacyKept bool) (lines []string) {
	h.t.Helper()
	h.Do(func() {
		var err error
		if lines, err = (&blocked{tables: h.tables, bridge: "cni0", legacyKept: legacyKept}).lines(h.t.Context(), dual()); err != nil {
			h.t.Error(err)
		}
	})
	return lines
}

// firewalldZones are rules of firewalld whose zone for the overlay accepts.
func firewalldZones(zone string) []string {
	var commands []string
	for _, chain := range []string{"filter_FORWARD_ZONES", "filter_FWD_trusted", "filter_FWD_public"} {
		commands = append(commands, "nft add chain inet firewalld "+chain)
	}
	return append(append([]string{"nft add table inet firewalld"}, commands...),
		"nft add chain inet firewalld filter_FORWARD { type filter hook forward priority 10 ; policy accept ; }",
		"nft add rule inet firewalld filter_FORWARD ct state established accept",
		"nft add rule inet firewalld filter_FORWARD jump filter_FORWARD_ZONES",
		"nft add rule inet firewalld filter_FORWARD reject with icmpx type admin-prohibited",
		"nft add rule inet firewalld filter_FWD_trusted accept",
		"nft add rule inet firewalld filter_FWD_public reject with icmpx type admin-prohibited",
		zone+" saddr 10.244.0.0/16 goto filter_FWD_trusted",
		zone+"6 saddr fd00:10:244::/56 goto filter_FWD_trusted")
}

// firewalldWithIPTables are those that it makes with iptables.
var firewalldWithIPTables = []string{
	"iptables-nft -N FORWARD_ZONES",
	"iptables-nft -N FWD_public", "iptables-nft -A FWD_public -j REJECT",
	"iptables-nft -A FORWARD_ZONES -g FWD_public",
	"iptables-nft -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT",
	"iptables-nft -A FORWARD -j FORWARD_ZONES", "iptables-nft -A FORWARD -j REJECT",
}

func TestBlocked(t *testing.T) {
	tests := []struct {
		name     string
		commands []string
		want     string // in the only line; empty for no line
	}{
		{"nobody has rules", nil, ""},
		{"Docker's policy", []string{"iptables-nft -P FORWARD DROP"}, "iptables-nft -I FORWARD -s 10.244.0.0/16 -j ACCEPT && iptables-nft -I FORWARD -d"},
		{"Docker's policy, IPv6", []string{"ip6tables-nft -P FORWARD DROP"}, "ip6tables-nft -I FORWARD -s fd00:10:244::/56 -j ACCEPT"},
		{"Docker's policy after what helps", []string{
			"iptables-nft -P FORWARD DROP",
			"iptables-nft -I FORWARD -s 10.244.0.0/16 -j ACCEPT", "iptables-nft -I FORWARD -d 10.244.0.0/16 -j ACCEPT",
		}, ""},
		{"half of what helps", []string{
			"iptables-nft -P FORWARD DROP", "iptables-nft -I FORWARD -s 10.0.0.0/8 -j ACCEPT",
		}, "iptables-nft -I FORWARD"},
		{"accepts of other traffic", []string{
			"iptables-nft -P FORWARD DROP", "iptables-nft -A FORWARD -i docker0 -j ACCEPT",
			"iptables-nft -A FORWARD -s 10.244.3.0/24 -j ACCEPT",
			"iptables-nft -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT",
		}, "iptables-nft -I FORWARD"},
		{"a rule that rejects the rest", []string{
			"iptables-nft -A FORWARD -j REJECT",
		}, "iptables-nft -I FORWARD"},
		{"rejects of other traffic", []string{
			"iptables-nft -A FORWARD -s 192.0.2.0/24 -j REJECT", "iptables-nft -A FORWARD -o eth9 -j DROP",
		}, ""},
		{"accepts of the pods' bridge", []string{
			"iptables-nft -P FORWARD DROP", "iptables-nft -A FORWARD -i cni0 -j ACCEPT", "iptables-nft -A FORWARD -o cni0 -j ACCEPT",
		}, ""},
		{"an accept behind a jump", []string{
			"iptables-nft -P FORWARD DROP", "iptables-nft -N X", "iptables-nft -A X -j ACCEPT", "iptables-nft -A FORWARD -j X",
		}, ""},
		{"a drop behind a jump", []string{
			"iptables-nft -N X", "iptables-nft -A X -j DROP", "iptables-nft -A FORWARD -j X",
		}, "iptables-nft -I FORWARD"},
		{"firewalld", []string{
			"nft add table inet firewalld",
			"nft add chain inet firewalld filter_FORWARD { type filter hook forward priority 10 ; policy accept ; }",
			"nft add rule inet firewalld filter_FORWARD ct state established accept",
			"nft add rule inet firewalld filter_FORWARD ip6 daddr fd00:10:244::/56 accept",
			"nft add rule inet firewalld filter_FORWARD ip6 saddr fd00:10:244::/56 accept",
			"nft add rule inet firewalld filter_FORWARD reject with icmpx type admin-prohibited",
		}, "firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16"},
		{"firewalld after what helps", append(firewalldZones("nft add rule inet firewalld filter_FORWARD_ZONES ip"),
			"nft add rule inet firewalld filter_FORWARD_ZONES goto filter_FWD_public"), ""},
		{"firewalld with iptables", firewalldWithIPTables, "firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16"},
		{"firewalld with iptables after what helps", append([]string{
			"iptables-nft -N FORWARD_ZONES", "iptables-nft -N FWD_trusted", "iptables-nft -A FWD_trusted -j ACCEPT",
			"iptables-nft -A FORWARD_ZONES -s 10.244.0.0/16 -g FWD_trusted",
		}, firewalldWithIPTables[1:]...), ""},
		{"a table of the user", []string{
			"nft add table ip6 mine",
			"nft add chain ip6 mine chain1 { type filter hook forward priority 10 ; policy drop ; }",
		}, "nft insert rule ip6 mine chain1 ip6 saddr fd00:10:244::/56 accept && nft insert rule ip6 mine chain1 ip6 daddr"},
		{"another hook", []string{
			"nft add table ip mine",
			"nft add chain ip mine in { type filter hook input priority 10 ; policy drop ; }",
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, tt.commands...)
			h.Do(func() {
				if _, err := h.tables.Apply(t.Context(), dual()); err != nil {
					t.Error(err)
				}
			})
			lines := h.lines(false)
			got := strings.Join(lines, "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) || len(lines) > 1 {
				t.Errorf("got %q, want %q\n%s", got, tt.want, h.Tool("nft", "list ruleset"))
			}
		})
	}
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
			h := newHost(t)
			for _, rule := range firewalldWithLegacy(test.zone...) {
				h.sh(programs[f] + " " + rule)
			}
			if got := strings.Join(h.lines(true), "\n"); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
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
				h := newHost(t)
				for _, rule := range tt.rules {
					h.sh(programs[f] + " " + strings.ReplaceAll(rule, "NETWORK", network.String()))
				}
				lines := h.lines(true)
				if tt.want != (len(lines) == 1) || tt.want && !strings.Contains(lines[0], programs[f]+" -I FORWARD -s "+network.String()+" -j ACCEPT") {
					t.Errorf("got %q", lines)
				}
			})
		}
	}
}

func TestALineTellsOfRulesThatNobodyRestores(t *testing.T) {
	h := newHost(t, "iptables-legacy -P FORWARD DROP", "iptables-legacy -N FLANNEL-FWD", "iptables-legacy -A FORWARD -j FLANNEL-FWD",
		"iptables-legacy -A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT", "iptables-legacy -A FLANNEL-FWD -d 10.244.0.0/16 -j ACCEPT")
	lines := h.lines(false)
	if len(lines) != 1 || !strings.Contains(lines[0], "FLANNEL-FWD, which nothing restores; let them pass with: iptables-legacy -I FORWARD") {
		t.Errorf("got %q", lines)
	}
}
