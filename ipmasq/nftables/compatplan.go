package nftables

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"

	"flannel/internal/firewall"
	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// plan compares the chains with the rules that they should hold. match is the
// extension for comments, empty if there is none.
func (c compat) plan(f ipfam.Family, h compatHave, cfg ipmasq.Config, match string) *batch {
	b := &batch{table: c.Table}
	base, own := c.chains(f)
	want := cfg.Rules(f, c.Table)
	if len(want) > 0 && !h.hooked {
		return b
	}
	rules := make([]*nftables.Rule, len(want))
	for i, r := range want {
		rules[i] = c.rule(own, addresses(f, r), match, &expr.Verdict{Kind: expr.VerdictAccept})
	}
	edit := ipmasq.Plan(c.found(f, h.own, want, cfg, match), h.exists, want)
	if edit.Remove {
		for _, r := range h.base {
			if v, ok := verdictOf(r); ok && v.Chain == c.Name {
				b.delRules(base, r)
			}
		}
	}
	b.edit(own, edit, h.own, rules)
	if len(want) > 0 {
		c.jumps(b, base, f, h.base, match)
	}
	return b
}

// found returns what the plan needs to know of the rules of our chain. Those of
// others name another network or do not have the comment. The mark rule, which
// returns, is shared.
func (c compat) found(f ipfam.Family, list []*nftables.Rule, want []ipmasq.Rule, cfg ipmasq.Config, match string) []ipmasq.Found {
	return ipmasq.Compare(list, ipmasq.Meanings(want, match != ""), func(r *nftables.Rule) (ipmasq.Meaning, ipmasq.Owner) {
		m := c.meaning(f, r)
		switch {
		case names(f, r.Exprs, cfg.Owns):
			return m, ipmasq.Own
		case m.Rule.Shared() && (m.Commented || returns(r)):
			return m, ipmasq.Shared
		}
		return m, ipmasq.Other
	})
}

// jumps makes the base chain jump to ours once. A jump that is right keeps its
// place; one that is not is replaced where it is, and a missing one is appended.
func (c compat) jumps(b *batch, base *nftables.Chain, f ipfam.Family, rules []*nftables.Rule, match string) {
	right := ipmasq.Meaning{Rule: ipmasq.Rule{Do: ipmasq.Accept}, Plain: true, Commented: match != "", Jump: true}
	kept := false
	var stale []*nftables.Rule
	for _, r := range rules {
		switch m := c.meaning(f, r); {
		case !m.Jump || !m.Plain || !m.Rule.Shared():
		case m == right && !kept:
			kept = true
		default:
			stale = append(stale, r)
		}
	}
	jump := c.rule(base, nil, match, &expr.Verdict{Kind: expr.VerdictJump, Chain: c.Name})
	switch {
	case kept:
	case len(stale) > 0:
		jump.Position = stale[0].Handle
		b.insertRule(jump)
	default:
		b.addRule(jump)
	}
	b.delRules(base, stale...)
}

// rule returns a rule in the layout of iptables-nft: conditions, comment,
// counter, verdict.
func (c compat) rule(in *nftables.Chain, conditions []expr.Any, match string, verdict *expr.Verdict) *nftables.Rule {
	list := conditions
	if match != "" {
		comment := xt.Comment(c.Comment)
		list = append(list, &expr.Match{Name: match, Info: &comment})
	}
	return &nftables.Rule{Table: in.Table, Chain: in, Exprs: append(list, &expr.Counter{}, verdict)}
}

// addresses returns the conditions of a rule in the layout of iptables-nft: a
// prefix of whole bytes is compared without a mask.
func addresses(f ipfam.Family, r ipmasq.Rule) []expr.Any {
	whole := func(m ipmasq.Match, offset uint32) []expr.Any {
		list := address(m, offset)
		if n := m.Prefix.Bits() / 8; len(list) == 3 && m.Prefix.Bits()%8 == 0 {
			load, cmp := list[0].(*expr.Payload), list[2].(*expr.Cmp)
			load.Len, cmp.Data = uint32(n), cmp.Data[:n]
			list = []expr.Any{load, cmp}
		}
		return list
	}
	return append(whole(r.Src, srcOffset[f]), whole(r.Dst, dstOffset[f])...)
}

// meaning reads a rule.
func (c compat) meaning(f ipfam.Family, r *nftables.Rule) ipmasq.Meaning {
	m := ipmasq.Meaning{Rule: ipmasq.Rule{Do: ipmasq.Accept}}
	conditions, plain := firewall.Conditions(f, r.Exprs)
	for _, e := range conditions {
		match := ipmasq.Match{Prefix: e.Values, Not: e.Not}
		plain = plain && !e.Last.IsValid()
		switch e.Field {
		case firewall.Src:
			m.Rule.Src = match
		case firewall.Dst:
			m.Rule.Dst = match
		default:
			plain = false
		}
	}
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Match:
			comment, ok := e.Info.(*xt.Comment)
			m.Commented = ok && string(*comment) == c.Comment
		case *expr.Verdict:
			m.Jump = e.Kind == expr.VerdictJump && e.Chain == c.Name
			m.Plain = plain && (m.Jump || e.Kind == expr.VerdictAccept)
		}
	}
	return m
}

func returns(r *nftables.Rule) bool {
	v, ok := verdictOf(r)
	return ok && v.Kind == expr.VerdictReturn
}

func verdictOf(r *nftables.Rule) (*expr.Verdict, bool) {
	if len(r.Exprs) == 0 {
		return nil, false
	}
	v, ok := r.Exprs[len(r.Exprs)-1].(*expr.Verdict)
	return v, ok
}
