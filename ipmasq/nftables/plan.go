package nftables

import (
	"net/netip"

	"github.com/google/nftables"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// have is what the kernel holds of one of our chains; chain is nil if there is
// none.
type have struct {
	chain *nftables.Chain
	rules []*nftables.Rule
	sets  sets
}

// plan compares a chain, and the sets that its rules look up, with what they should
// be.
func plan(f ipfam.Family, c chain, h have, cfg ipmasq.Config) *batch {
	b, in := &batch{table: c.table}, c.in(f)
	want, excluded := c.want(f, cfg)
	if h.chain != nil && len(want) > 0 && !c.right(h.chain) {
		// What a chain is hooked to cannot be changed.
		b.delRules(in, h.rules...)
		b.delChain(in)
		h.chain, h.rules = nil, nil
	}
	rules, put := make([]ipmasq.Rule, len(want)), make([]*nftables.Rule, len(want))
	for i, w := range want {
		rules[i], put[i] = w.rule, w.in(in)
	}
	edit := ipmasq.Plan(c.found(f, h.rules, want, cfg.Owns), h.chain != nil, rules)
	network := cfg.Network[f]
	b.fillSet(f, network, h.sets, excluded)
	b.edit(in, edit, h.rules, put)
	for n := range h.sets {
		if n != network || len(excluded) == 0 {
			b.change(0, 1, func(conn *nftables.Conn) error { conn.DelSet(setOf(f, n)); return nil })
		}
	}
	return b
}

// found returns what the plan needs to know of the rules of a chain. A rule without
// a comment is flannel's if it names our network or is its mark rule; it counts as
// ours.
func (c chain) found(f ipfam.Family, list []*nftables.Rule, want []wanted, owns func(netip.Prefix) bool) []ipmasq.Found {
	keys := make([]string, len(want))
	for i, w := range want {
		keys[i] = w.key(f)
	}
	return ipmasq.Compare(list, keys, func(r *nftables.Rule) (string, ipmasq.Owner) {
		comment := commentIn(r.UserData)
		key := wanted{exprs: r.Exprs, comment: comment}.key(f)
		network, known := c.owner(comment)
		switch {
		case known && !network.IsValid() && c.table == ipmasq.Nat:
			return key, ipmasq.Shared
		case known && (owns(network) || !network.IsValid()),
			comment == "" && (names(f, r.Exprs, owns) || isFlannelMark(r.Exprs)):
			return key, ipmasq.Own
		}
		return key, ipmasq.Other
	})
}
