package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// Blocked returns a line for each family in which the chain FORWARD of these
// programs drops what the overlay forwards, with the command that lets it pass.
// A jump to our own chain lets it pass, too: it is asked for when the rules are
// in place. Of the others only rules on nothing but the addresses are judged.
func (d *Driver) Blocked(_ context.Context, c ipmasq.Config) ([]string, error) {
	var lines []string
	ch := chains[ipmasq.Filter]
	for f, network := range ipfam.Prefixes(c.Network) {
		t := d.tools[f]
		if t == nil || t.mode == Legacy && !legacyInUse(f, ch.table) {
			continue
		}
		text, _, err := t.list(ch.table, ch.base)
		if err != nil {
			return nil, err
		}
		if !drops(ch, text, network) {
			continue
		}
		program := names[f] + "-" + string(t.mode)
		lines = append(lines, fmt.Sprintf("chain %s of %s drops forwarded packets of %s; let them pass with: %s -I FORWARD -s %s -j ACCEPT && %s -I FORWARD -d %s -j ACCEPT",
			ch.base, program, network, program, network, program, network))
	}
	return lines, nil
}

// drops reports whether packets from or to a network meet a drop before an
// accept.
func drops(ch chain, text []string, network netip.Prefix) bool {
	policy := slices.Contains(text, "-P "+ch.base+" DROP")
	entries := ch.parse(ch.base, text)
	covers := func(m, other ipmasq.Match) bool {
		return !m.Any() && !m.Not && other.Any() && m.Prefix.Bits() <= network.Bits() && m.Prefix.Contains(network.Addr())
	}
	dropped := func(side func(ipmasq.Rule) (ipmasq.Match, ipmasq.Match)) bool {
		for _, e := range entries {
			m, other := side(e.rule)
			switch {
			case e.commented && e.text == ch.jump:
				return false
			case e.text == "-j DROP" || strings.HasPrefix(e.text, "-j REJECT"):
				return true
			case e.plain && e.rule.Do == ipmasq.Accept && !e.rule.Marked && (covers(m, other) || m.Any() && other.Any()):
				return false
			}
		}
		return policy
	}
	return dropped(func(r ipmasq.Rule) (ipmasq.Match, ipmasq.Match) { return r.Src, r.Dst }) ||
		dropped(func(r ipmasq.Rule) (ipmasq.Match, ipmasq.Match) { return r.Dst, r.Src })
}
