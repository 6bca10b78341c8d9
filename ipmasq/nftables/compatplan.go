package nftables

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"

	"flannel/internal/firewall"
	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// plan compares the chains with the rules that they should hold. match is the
// extension for comments, empty if there is none. Rules of another daemon and of
// the user stay, and the chain and the jump with them.
func (c compat) plan(f ipfam.Family, h compatHave, cfg ipmasq.Config, match string) *batch {
	b := &batch{table: c.table}
	base, own := c.chains(f)
	want := cfg.Rules(f, c.table)
	ours, others := c.sortOut(f, h.own, cfg)
	switch {
	case len(want) > 0 && h.hooked:
		if !h.exists {
			b.addChain(own)
		}
		stale := c.rules(b, own, f, ours, want, match)
		c.jumps(b, base, f, h.base, match)
		b.delRules(own, stale...)
	case len(want) > 0 || !h.exists:
	case others:
		b.delRules(own, ours...)
	default:
		for _, r := range h.base {
			if v, ok := verdictOf(r); ok && v.Chain == c.name {
				b.delRules(base, r)
			}
		}
		b.delRules(own, ours...)
		b.change(0, 0, func(conn *nftables.Conn) error { conn.FlushChain(own); return nil })
		b.delChain(own)
	}
	return b
}

// sortOut returns our rules, and whether there are others: those that name another
// network or do not have the comment. The mark rule, which returns, is shared.
func (c compat) sortOut(f ipfam.Family, list []*nftables.Rule, cfg ipmasq.Config) (ours []*nftables.Rule, others bool) {
	for _, r := range list {
		switch t := c.text(f, r); {
		case names(f, r.Exprs, cfg.Owns):
			ours = append(ours, r)
		case !t.rule.Shared() || !t.commented && !returns(r):
			others = true
		}
	}
	return ours, others
}

// rules adds the wanted rules that are missing, and returns those of ours that are
// to be deleted. What is right stays.
func (c compat) rules(b *batch, own *nftables.Chain, f ipfam.Family, ours []*nftables.Rule, want []ipmasq.Rule, match string) (stale []*nftables.Rule) {
	have, texts := make([]compatText, len(ours)), make([]compatText, len(want))
	for i, r := range ours {
		have[i] = c.text(f, r)
	}
	for i, r := range want {
		texts[i] = compatText{plain: true, commented: match != "", rule: r}
	}
	keep := ipmasq.KeepInOrder(have, texts)
	for i, at := range keep {
		if at < 0 {
			b.addRule(c.rule(own, addresses(f, want[i]), match, &expr.Verdict{Kind: expr.VerdictAccept}))
		}
	}
	for i, r := range ours {
		if !slices.Contains(keep, i) {
			stale = append(stale, r)
		}
	}
	return stale
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
	jump := c.rule(base, nil, match, &expr.Verdict{Kind: expr.VerdictJump, Chain: c.name})
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
		comment := xt.Comment(c.comment)
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
			t.commented = ok && string(*comment) == c.comment
		case *expr.Verdict:
			t.jump = e.Kind == expr.VerdictJump && e.Chain == c.name
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
