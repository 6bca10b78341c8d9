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

// compatSteps turn what the kernel holds into what it should hold. They are done
// in the order of the fields.
type compatSteps struct {
	table     ipmasq.Table
	base, own *nftables.Chain
	makeChain bool
	add       []*nftables.Rule
	// jump is put in front of the rule at its position, or at the end.
	jump      *nftables.Rule
	del       []*nftables.Rule
	dropChain bool
}

func (s compatSteps) put() int {
	n := len(s.add)
	for _, more := range []bool{s.makeChain, s.jump != nil} {
		if more {
			n++
		}
	}
	return n
}

func (s compatSteps) deleted() int {
	if s.dropChain {
		return len(s.del) + 1
	}
	return len(s.del)
}

// queue adds the steps to the connection's transaction. A table that is not
// there makes it fail.
func (s compatSteps) queue(conn *nftables.Conn) {
	if s.makeChain {
		conn.AddChain(s.own)
	}
	for _, r := range s.add {
		conn.AddRule(r)
	}
	switch {
	case s.jump == nil:
	case s.jump.Position == 0:
		conn.AddRule(s.jump)
	default:
		conn.InsertRule(s.jump)
	}
	for _, r := range s.del {
		// The library refuses rules without a number; those of the kernel have one.
		_ = conn.DelRule(r)
	}
	if s.dropChain {
		conn.FlushChain(s.own)
		conn.DelChain(s.own)
	}
}

// plan compares the chains with the rules that they should hold. match is the
// extension for comments, empty when there is none. Rules of another daemon and
// of the user stay, and the chain and the jump with them.
func (c compat) plan(f ipfam.Family, h compatHave, cfg ipmasq.Config, match string) compatSteps {
	s := compatSteps{table: c.table}
	s.base, s.own = c.chains(f)
	want := cfg.Rules(f, c.table)
	ours, others := c.sortOut(f, h.own, cfg)
	switch {
	case len(want) > 0 && h.hooked:
		s.makeChain = !h.exists
		s.rules(f, c, ours, want, match)
		s.jumps(f, c, h.base, match)
	case len(want) > 0 || !h.exists:
	case others > 0:
		s.delete(s.own, ours)
	default:
		for _, r := range h.base {
			if v, ok := verdictOf(r); ok && v.Chain == c.name {
				s.delete(s.base, []*nftables.Rule{r})
			}
		}
		s.delete(s.own, ours)
		s.dropChain = true
	}
	return s
}

// sortOut returns our rules, and how many there are of others: those that name
// another network or do not have the comment. The mark rule, which returns, is
// shared.
func (c compat) sortOut(f ipfam.Family, list []*nftables.Rule, cfg ipmasq.Config) (ours []*nftables.Rule, others int) {
	for _, r := range list {
		switch t := c.text(f, r); {
		case names(f, r.Exprs, cfg.Owns):
			ours = append(ours, r)
		case !t.rule.Shared() || !t.commented && !returns(r):
			others++
		}
	}
	return ours, others
}

func (s *compatSteps) delete(in *nftables.Chain, list []*nftables.Rule) {
	for _, r := range list {
		s.del = append(s.del, &nftables.Rule{Table: in.Table, Chain: in, Handle: r.Handle})
	}
}

// rules makes our chain hold the wanted rules. What is right stays.
func (s *compatSteps) rules(f ipfam.Family, c compat, ours []*nftables.Rule, want []ipmasq.Rule, match string) {
	have, texts := make([]compatText, len(ours)), make([]compatText, len(want))
	for i, r := range ours {
		have[i] = c.text(f, r)
	}
	for i, r := range want {
		texts[i] = compatText{plain: true, commented: match != "", rule: r}
	}
	kept := map[int]bool{}
	for i, at := range ipmasq.Stays(have, texts) {
		if at >= 0 {
			kept[at] = true
			continue
		}
		s.add = append(s.add, c.rule(s.own, addresses(f, want[i]), match, &expr.Verdict{Kind: expr.VerdictAccept}))
	}
	for i, r := range ours {
		if !kept[i] {
			s.delete(s.own, []*nftables.Rule{r})
		}
	}
}

// jumps makes the base chain jump to ours once. A jump that is there keeps its
// place; another one is appended.
func (s *compatSteps) jumps(f ipfam.Family, c compat, base []*nftables.Rule, match string) {
	right := compatText{plain: true, commented: match != "", jump: true, rule: ipmasq.Rule{Do: ipmasq.Accept}}
	var first *nftables.Rule
	var texts []compatText
	var found []*nftables.Rule
	for _, r := range base {
		if t := c.text(f, r); t.jump && t.rule.Shared() && t.plain {
			texts, found = append(texts, t), append(found, r)
		}
	}
	if len(found) > 0 {
		first = found[0]
	}
	stays := slices.Index(texts, right)
	for i, r := range found {
		if i != stays {
			s.delete(s.base, []*nftables.Rule{r})
		}
	}
	if stays >= 0 {
		return
	}
	s.jump = c.rule(s.base, nil, match, &expr.Verdict{Kind: expr.VerdictJump, Chain: c.name})
	if first != nil {
		s.jump.Position = first.Handle
	}
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

// compatText is what a rule says; it says more when it is not plain.
type compatText struct {
	plain, commented bool
	// jump says that it jumps to our chain; else it accepts, when plain.
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
