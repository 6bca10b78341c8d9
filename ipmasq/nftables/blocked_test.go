package nftables

import (
	"strings"
	"testing"
)

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
			h := newHost(t)
			for _, command := range tt.commands {
				name, args, _ := strings.Cut(command, " ")
				h.Tool(name, args)
			}
			h.apply(dual())
			lines, err := h.driver.Blocked(t.Context(), dual())
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(lines, "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) || len(lines) > 1 {
				t.Errorf("got %q, want %q\n%s", got, tt.want, h.ruleset())
			}
		})
	}
}
