package ipmasq

import "slices"

// Owner is who may change a rule.
type Owner uint8

// The owners.
const (
	// Other is another daemon, or the user.
	Other Owner = iota
	// Own is this daemon.
	Own
	// Shared are all daemons of the host.
	Shared
)

// Found is a rule in a chain of ours, as far as a plan depends on it.
type Found struct {
	Owner Owner
	// Is is the place of the wanted rule that it equals, or -1.
	Is int
}

// Meaning is what a rule in the layout of the iptables programs means.
type Meaning struct {
	// Rule is the whole of it if Plain is set, else what of it a Rule can express.
	Rule  Rule
	Plain bool
	// Commented is set if the rule has the comment of its chain.
	Commented bool
	// Jump is set if it jumps to our chain.
	Jump bool
}

// Meanings are those of wanted rules, with or without the comment.
func Meanings(rules []Rule, commented bool) []Meaning {
	out := make([]Meaning, len(rules))
	for i, r := range rules {
		out[i] = Meaning{Rule: r, Plain: true, Commented: commented}
	}
	return out
}

// Compare describes the rules found in a chain for Plan. read returns what a rule
// means, to be compared with what the wanted ones mean, and who may change it.
func Compare[R any, M comparable](found []R, want []M, read func(R) (M, Owner)) []Found {
	places := make(map[M]int, len(want))
	for i, w := range want {
		places[w] = i
	}
	out := make([]Found, len(found))
	for i, r := range found {
		meaning, owner := read(r)
		out[i] = Found{Owner: owner, Is: -1}
		if at, wanted := places[meaning]; wanted {
			out[i].Is = at
		}
	}
	return out
}

// Edit is what turns a chain into the wanted one.
type Edit struct {
	// Create is set if the chain must be created first, Remove if it is to be
	// removed in the end, with the jumps to it.
	Create, Remove bool
	// Delete are the places of the rules to delete among those found, in their order.
	Delete []int
	// Puts are in the order of the chain.
	Puts []Put
}

// Put is a rule to write.
type Put struct {
	// Rule is its place among the wanted ones.
	Rule int
	// Before is the place of the rule found, which stays, that it is put in front
	// of; AtFirst, or the number of those found for the end of the chain.
	Before int
}

// AtFirst is in front of all rules of a chain.
const AtFirst = -1

// Plan compares the rules found in a chain with those wanted. The rules of others
// stay, and the chain and the shared rules with them. What is right stays where it
// is: a chain can have thousands of rules.
func Plan(found []Found, exists bool, want []Rule) Edit {
	if len(want) == 0 {
		others := slices.ContainsFunc(found, func(r Found) bool { return r.Owner == Other })
		e := Edit{Remove: exists && !others}
		for i, r := range found {
			if e.Remove || r.Owner == Own {
				e.Delete = append(e.Delete, i)
			}
		}
		return e
	}
	e, keep := Edit{Create: !exists}, keepInOrder(found, len(want))
	shared := slices.ContainsFunc(want, Rule.Shared)
	for i, r := range found {
		mayDelete := r.Owner == Own || r.Owner == Shared && shared
		if mayDelete && (r.Is < 0 || keep[r.Is] != i) {
			e.Delete = append(e.Delete, i)
		}
	}
	before := len(found)
	for i := len(want) - 1; i >= 0; i-- {
		switch {
		case keep[i] >= 0:
			before = keep[i]
		case want[i].Shared(): // other daemons' rules need it, too
			e.Puts = append(e.Puts, Put{i, AtFirst})
		default:
			e.Puts = append(e.Puts, Put{i, before})
		}
	}
	slices.Reverse(e.Puts)
	return e
}

// keepInOrder finds for each wanted rule the one found that can stay where it is so
// that all end up in their order, or -1. Duplicates are not kept: iptables deletes
// rules by their text, and then the first one with that text.
func keepInOrder(found []Found, want int) []int {
	times, out := make([]int, want), slices.Repeat([]int{-1}, want)
	for _, r := range found {
		if r.Is >= 0 {
			times[r.Is]++
		}
	}
	next := 0
	for i, r := range found {
		if r.Is >= next && times[r.Is] == 1 {
			out[r.Is], next = i, r.Is+1
		}
	}
	return out
}
