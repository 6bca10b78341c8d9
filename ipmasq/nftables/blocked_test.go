package nftables

import (
	"strings"
	"testing"
)

func TestBlocked(t *testing.T) {
	tests := []struct {
		name     string
		commands []string
		want     string // in the only line; empty for no line
	}{
		{"nobody has rules", nil, ""},
		{"Docker's policy", []string{"iptables-nft -P FORWARD DROP"}, "iptables -I FORWARD -s 10.244.0.0/16 -j ACCEPT && iptables -I FORWARD -d"},
		{"Docker's policy, IPv6", []string{"ip6tables-nft -P FORWARD DROP"}, "ip6tables -I FORWARD -s fd00:10:244::/56 -j ACCEPT"},
		{"Docker's policy after what helps", []string{
			"iptables-nft -P FORWARD DROP",
			"iptables-nft -I FORWARD -s 10.244.0.0/16 -j ACCEPT", "iptables-nft -I FORWARD -d 10.244.0.0/16 -j ACCEPT",
		}, ""},
		{"half of what helps", []string{
			"iptables-nft -P FORWARD DROP", "iptables-nft -I FORWARD -s 10.0.0.0/8 -j ACCEPT",
		}, "iptables -I FORWARD"},
		{"accepts of other traffic", []string{
			"iptables-nft -P FORWARD DROP", "iptables-nft -A FORWARD -i docker0 -j ACCEPT",
			"iptables-nft -A FORWARD -s 10.244.3.0/24 -j ACCEPT",
			"iptables-nft -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT",
		}, "iptables -I FORWARD"},
		{"a rule that rejects the rest", []string{
			"iptables-nft -A FORWARD -j REJECT",
		}, "iptables -I FORWARD"},
		{"rejects of other traffic", []string{
			"iptables-nft -A FORWARD -s 192.0.2.0/24 -j REJECT", "iptables-nft -A FORWARD -o eth9 -j DROP",
		}, ""},
		{"an accept behind a jump", []string{
			"iptables-nft -P FORWARD DROP", "iptables-nft -N X", "iptables-nft -A X -j ACCEPT", "iptables-nft -A FORWARD -j X",
		}, ""},
		{"a drop behind a jump", []string{
			"iptables-nft -N X", "iptables-nft -A X -j DROP", "iptables-nft -A FORWARD -j X",
		}, "iptables -I FORWARD"},
		{"firewalld", []string{
			"nft add table inet firewalld",
			"nft add chain inet firewalld filter_FORWARD { type filter hook forward priority 10 ; policy accept ; }",
			"nft add rule inet firewalld filter_FORWARD ct state established accept",
			"nft add rule inet firewalld filter_FORWARD ip6 daddr fd00:10:244::/56 accept",
			"nft add rule inet firewalld filter_FORWARD ip6 saddr fd00:10:244::/56 accept",
			"nft add rule inet firewalld filter_FORWARD reject with icmpx type admin-prohibited",
		}, "firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16"},
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
