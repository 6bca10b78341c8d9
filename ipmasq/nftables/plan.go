package nftables

import (
	"math"
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
	sets  sets
}

// steps turn what the kernel holds of one chain into what it should hold. They
// are done in the order of the fields.
type steps struct {
	family ipfam.Family
	chain  chain
	// makeChain is also done when the chain is there and differs.
	dropChain, makeChain bool
	del                  []*nftables.Rule
	sets                 setSteps
	add                  []addition
	insert               []wanted
}

// addition is a rule to be put in front of the one with this number, or at the
// end for 0.
type addition struct {
	wanted
	before uint64
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

// plan compares a chain with the rules that it should hold. Rules of another
// daemon and of the user stay, and the mark rule and the chain with them.
func plan(f ipfam.Family, c chain, h have, cfg ipmasq.Config) steps {
	shared, own, excluded := c.want(f, cfg)
	s := steps{family: f, chain: c, sets: planSets(cfg.Network[f], h.sets, excluded)}
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
		s.insert, s.add = shared, additions(own, 0)
		return s
	}
	s.makeChain = h.chain == nil
	first := s.have(ours, own)
	inPlace := len(marks) == 1 && len(shared) == 1 && marks[0].key(f) == shared[0].key(f) && marks[0].at < first
	if !inPlace {
		s.del, s.insert = append(s.del, rules(marks)...), shared
	}
	return s
}

// have makes the chain hold our rules in their order, and returns where the first
// of those is that stay. What is right stays: there can be thousands.
func (s *steps) have(ours []placed, own []wanted) (first int) {
	have, want := make([]string, len(ours)), make([]string, len(own))
	for i, p := range ours {
		have[i] = p.key(s.family)
	}
	for i, w := range own {
		want[i] = w.key(s.family)
	}
	stays := ipmasq.Stays(have, want)
	first = math.MaxInt
	kept := make([]bool, len(ours))
	from := 0
	for to, i := range stays {
		if i < 0 {
			continue
		}
		kept[i], first = true, min(first, ours[i].at)
		s.add = append(s.add, additions(own[from:to], ours[i].Handle)...)
		from = to + 1
	}
	s.add = append(s.add, additions(own[from:], 0)...)
	for i, p := range ours {
		if !kept[i] {
			s.del = append(s.del, p.Rule)
		}
	}
	return first
}

func additions(list []wanted, before uint64) []addition {
	var out []addition
	for _, w := range list {
		out = append(out, addition{w, before})
	}
	return out
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

// key is the rule as it goes over the wire.
func (p placed) key(f ipfam.Family) string { return wanted{p.Exprs, commentIn(p.UserData)}.key(f) }

func rules(list []placed) []*nftables.Rule {
	var out []*nftables.Rule
	for _, p := range list {
		out = append(out, p.Rule)
	}
	return out
}
