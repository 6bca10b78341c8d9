package nftables

import (
	"net/netip"

	"github.com/google/nftables"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// have is what the kernel holds of one of our chains; chain is nil when there
// is none.
type have struct {
	chain *nftables.Chain
	rules []*nftables.Rule
}

// steps turn what the kernel holds of one chain into what it should hold. They
// are done in the order of the fields.
type steps struct {
	family ipfam.Family
	chain  chain
	// makeChain is also done when the chain is there and differs.
	dropChain, makeChain bool
	del                  []*nftables.Rule
	insert, add          []wanted
}

func (s steps) empty() bool { return s.put()+s.deleted() == 0 }

func (s steps) put() int {
	n := len(s.insert) + len(s.add)
	if s.makeChain {
		n++
	}
	return n
}

func (s steps) deleted() int {
	n := len(s.del)
	if s.dropChain {
		n++
	}
	return n
}

// plan compares a chain with the rules that it should hold. Rules of another
// daemon and of the user stay, and the mark rule and the chain with them.
func plan(f ipfam.Family, c chain, h have, cfg ipmasq.Config) steps {
	s := steps{family: f, chain: c}
	shared, own := c.want(f, cfg)
	marks, ours, others := sortOut(f, c, h.rules, cfg.Owns)
	if len(own) == 0 {
		s.del = rules(ours)
		if h.chain != nil && len(others) == 0 {
			s.del, s.dropChain = append(s.del, rules(marks)...), true
		}
		return s
	}
	if h.chain != nil && !c.right(h.chain) {
		// What a chain is hooked to cannot be changed.
		s.dropChain, s.makeChain = true, true
		s.del = h.rules
		s.insert, s.add = shared, own
		return s
	}
	s.makeChain = h.chain == nil
	same := 0
	for same < min(len(own), len(ours)) && ours[same].is(f, own[same]) {
		same++
	}
	s.del, s.add = rules(ours[same:]), own[same:]
	inPlace := len(marks) == 1 && len(shared) == 1 && marks[0].is(f, shared[0]) && (same == 0 || marks[0].at < ours[0].at)
	if !inPlace {
		s.del, s.insert = append(s.del, rules(marks)...), shared
	}
	return s
}

// sortOut tells the mark rules, our rules, and those of others apart. A rule
// without a comment is flannel's when it names our network or is its mark rule;
// it goes like ours.
func sortOut(f ipfam.Family, c chain, list []*nftables.Rule, owns func(netip.Prefix) bool) (marks, ours, others []placed) {
	for i, r := range list {
		p := placed{r, i}
		comment := commentIn(r.UserData)
		network, known := c.owner(comment)
		switch {
		case known && !network.IsValid():
			marks = append(marks, p)
		case known && owns(network),
			comment == "" && (names(f, r.Exprs, owns) || isFlannelMark(r.Exprs)):
			ours = append(ours, p)
		default:
			others = append(others, p)
		}
	}
	return marks, ours, others
}

// placed is a rule and where in the chain it is.
type placed struct {
	*nftables.Rule
	at int
}

// is reports whether the rule is the wanted one.
func (p placed) is(f ipfam.Family, w wanted) bool {
	return commentIn(p.UserData) == w.comment && equal(f, p.Exprs, w.exprs)
}

func rules(list []placed) []*nftables.Rule {
	var out []*nftables.Rule
	for _, p := range list {
		out = append(out, p.Rule)
	}
	return out
}
