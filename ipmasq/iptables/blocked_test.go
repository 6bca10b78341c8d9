package iptables

import (
	"strings"
	"testing"

	"flannel/ipmasq"
)

func TestDrops(t *testing.T) {
	const accept, refuse = "-P FORWARD ACCEPT", "-P FORWARD DROP"
	tests := map[string]struct {
		text string
		want bool
	}{
		"no rules":                   {accept, false},
		"the policy":                 {refuse, true},
		"the policy, helped":         {refuse + "\n-A FORWARD -s 10.244.0.0/16 -j ACCEPT\n-A FORWARD -d 10.0.0.0/8 -j ACCEPT", false},
		"the policy, half helped":    {refuse + "\n-A FORWARD -s 10.244.0.0/16 -j ACCEPT", true},
		"the policy, all accepted":   {refuse + "\n-A FORWARD -j ACCEPT", false},
		"an accept of other traffic": {refuse + "\n-A FORWARD -i docker0 -j ACCEPT\n-A FORWARD ! -s 10.244.0.0/16 -j ACCEPT", true},
		"a rule that rejects all":    {accept + "\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited", true},
		"a rule that drops all":      {accept + "\n-A FORWARD -j DROP", true},
		"an accept after the drop":   {accept + "\n-A FORWARD -j DROP\n-A FORWARD -j ACCEPT", true},
		"our own jump":               {refuse + "\n-A FORWARD -j DOCKER\n-A FORWARD " + chains[ipmasq.Filter].jump, false},
		"our own jump, too late":     {refuse + "\n-A FORWARD -j REJECT\n-A FORWARD " + chains[ipmasq.Filter].jump, true},
		"a drop of other traffic":    {accept + "\n-A FORWARD -s 192.0.2.0/24 -j DROP", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := drops(chains[ipmasq.Filter], strings.Split(tt.text, "\n"), prefix("10.244.0.0/16")); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestBlocked(t *testing.T) {
	eachMode(t, func(t *testing.T, h host) {
		h.sh("ip6tables -P FORWARD DROP")
		var lines []string
		var err error
		h.Do(func() { lines, err = h.driver.Blocked(t.Context(), dual()) })
		if err != nil || len(lines) != 1 || !strings.Contains(lines[0], "ip6tables"+h.suffix+" -I FORWARD -s fd00:10:244::/56 -j ACCEPT") {
			t.Errorf("got %q, %v", lines, err)
		}
	})
}
