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

// steps turn what the kernel holds of one chain into what it should hold. They
// are done in the order of the fields, in one transaction.
type steps struct {
	family ipfam.Family
	chain  chain
	// makeChain is also done if the chain exists and differs.
	del                  []*nftables.Rule
	dropChain, makeChain bool
	sets                 setSteps
	// add are appended, insert comes before all other rules.
	add, insert []wanted
}

func (s steps) empty() bool { return s.put()+s.deleted() == 0 }

func (s steps) put() int {
	n, _ := s.sets.counts()
	n += len(s.insert) + len(s.add)
	if s.makeChain {
		n++
	}
	return n
}

func (s steps) deleted() int {
	_, n := s.sets.counts()
	n += len(s.del)
	if s.dropChain {
		n++
	}
	return n
}

// plan compares a chain with the rules that it should hold. If they differ, all
// of ours are replaced. Rules of another daemon and of the user stay, and the mark
// rule and the chain with them.
func plan(f ipfam.Family, c chain, h have, cfg ipmasq.Config) steps {
	shared, own, excluded := c.want(f, cfg)
	s := steps{family: f, chain: c, sets: planSets(cfg.Network[f], h.sets, excluded)}
	ours, marked, others := sortOut(f, c, h.rules, cfg.Owns)
	switch {
	case len(own) == 0 && (h.chain == nil || others):
		s.del = ours
	case len(own) == 0:
		s.del, s.dropChain = h.rules, true
	case h.chain != nil && !c.right(h.chain):
		// What a chain is hooked to cannot be changed.
		s.del, s.dropChain, s.makeChain = h.rules, true, true
		s.insert, s.add = shared, own
	case !equal(f, marked, slices.Concat(shared, own)):
		s.del, s.makeChain = marked, h.chain == nil
		s.insert, s.add = shared, own
	}
	return s
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
