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
	places := make(map[compatText]int, len(want))
	for i, r := range want {
		places[compatText{plain: true, commented: match != "", rule: r}] = i
	}
	out := make([]ipmasq.Found, len(list))
	for i, r := range list {
		t := c.text(f, r)
		switch {
		case names(f, r.Exprs, cfg.Owns):
			out[i].Owner = ipmasq.Own
		case t.rule.Shared() && (t.commented || returns(r)):
			out[i].Owner = ipmasq.Shared
		}
		out[i].Is = -1
		if at, right := places[t]; right {
			out[i].Is = at
		}
	}
	return out
}

// jumps makes the base chain jump to ours once. A jump that is right keeps its
// place; one that is not is replaced where it is, and a missing one is appended.
func (c compat) jumps(b *batch, base *nftables.Chain, f ipfam.Family, rules []*nftables.Rule, match string) {
	right := compatText{plain: true, commented: match != "", jump: true, rule: ipmasq.Rule{Do: ipmasq.Accept}}
	kept := false
	var stale []*nftables.Rule
	for _, r := range rules {
		switch t := c.text(f, r); {
		case !t.jump || !t.plain || !t.rule.Shared():
		case t == right && !kept:
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

// compatText is what a rule means. It is plain if the fields express all of it.
type compatText struct {
	plain, commented bool
	// jump is set if it jumps to our chain; otherwise a plain rule accepts.
	jump bool
	rule ipmasq.Rule
}

// text reads a rule.
func (c compat) text(f ipfam.Family, r *nftables.Rule) compatText {
	t := compatText{rule: ipmasq.Rule{Do: ipmasq.Accept}}
	conditions, plain := firewall.Conditions(f, r.Exprs)
	for _, e := range conditions {
		m := ipmasq.Match{Prefix: e.Values, Not: e.Not}
		switch e.Field {
		case firewall.Src:
			t.rule.Src = m
		case firewall.Dst:
			t.rule.Dst = m
		default:
			plain = false
		}
	}
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Match:
			comment, ok := e.Info.(*xt.Comment)
			t.commented = ok && string(*comment) == c.Comment
		case *expr.Verdict:
			t.jump = e.Kind == expr.VerdictJump && e.Chain == c.Name
			t.plain = plain && (t.jump || e.Kind == expr.VerdictAccept)
		}
	}
	return t
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
