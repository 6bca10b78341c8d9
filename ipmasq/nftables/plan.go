package nftables

import (
	"net/netip"
	"slices"

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

// plan compares a chain with the rules that it should hold. If they differ, all
// of ours are replaced. Rules of another daemon and of the user stay, and the mark
// rule and the chain with them.
func plan(f ipfam.Family, c chain, h have, cfg ipmasq.Config) *batch {
	b, in := &batch{table: c.table}, c.in(f)
	shared, own, excluded := c.want(f, cfg)
	ours, marked, others := sortOut(f, c, h.rules, cfg.Owns)
	replace := false
	switch {
	case len(own) == 0 && (h.chain == nil || others):
		b.delRules(in, ours...)
	case len(own) == 0:
		b.delRules(in, h.rules...)
		b.delChain(in)
	case h.chain != nil && !c.right(h.chain):
		// What a chain is hooked to cannot be changed.
		b.delRules(in, h.rules...)
		b.delChain(in)
		replace = true
	case !equal(f, marked, slices.Concat(shared, own)):
		b.delRules(in, marked...)
		replace = true
	}
	if replace && (h.chain == nil || b.chains < 0) {
		b.addTable(in.Table)
		b.addChain(in)
	}
	network := cfg.Network[f]
	b.fillSet(f, network, h.sets, excluded)
	if replace {
		for _, w := range own {
			b.addRule(w.rule(in))
		}
		for _, w := range shared {
			b.insertRule(w.rule(in))
		}
	}
	for n := range h.sets {
		if n != network || len(excluded) == 0 {
			b.change(0, 1, func(conn *nftables.Conn) error { conn.DelSet(setOf(f, n)); return nil })
		}
	}
	return b
}

// equal reports whether rules are the wanted ones, in their order.
func equal(f ipfam.Family, have []*nftables.Rule, want []wanted) bool {
	return slices.EqualFunc(have, want, func(r *nftables.Rule, w wanted) bool {
		return wanted{r.Exprs, commentIn(r.UserData)}.key(f) == w.key(f)
	})
}

// sortOut returns our rules, these and the mark rules in their order, and whether
// there are others. A rule without a comment is flannel's if it names our network
// or is its mark rule; it counts as ours.
func sortOut(f ipfam.Family, c chain, list []*nftables.Rule, owns func(netip.Prefix) bool) (ours, marked []*nftables.Rule, others bool) {
	for _, r := range list {
		comment := commentIn(r.UserData)
		network, known := c.owner(comment)
		switch {
		case known && !network.IsValid():
			marked = append(marked, r)
		case known && owns(network),
			comment == "" && (names(f, r.Exprs, owns) || isFlannelMark(r.Exprs)):
			ours, marked = append(ours, r), append(marked, r)
		default:
			others = true
		}
	}
	return ours, marked, others
}
