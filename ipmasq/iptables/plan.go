package iptables

import (
	"slices"
	"strconv"
	"strings"

	"flannel/ipmasq"
)

// have is what the kernel holds of one table: the rules of the kernel's chain
// and, when it exists, of ours.
type have struct {
	base, own []entry
	exists    bool
}

// script is a list of commands for iptables-restore that turn what the kernel
// holds into what it should hold.
type script struct {
	chain        chain
	lines        []string
	put, deleted int
}

// text returns the transaction, or nothing when nothing is to be done.
func (s *script) text() string {
	if len(s.lines) == 0 {
		return ""
	}
	return "*" + string(s.chain.table) + "\n" + strings.Join(s.lines, "\n") + "\nCOMMIT\n"
}

func (s *script) add(in, rule string) { s.put++; s.line("-A", in, rule) }
func (s *script) insert(in string, number int, rule string) {
	s.put++
	s.line("-I", in, strconv.Itoa(number), rule)
}
func (s *script) del(in, rule string)  { s.deleted++; s.line("-D", in, rule) }
func (s *script) line(words ...string) { s.lines = append(s.lines, strings.Join(words, " ")) }

// plan compares what the kernel holds with the rules that it should hold. The
// chain may also hold rules of another daemon and of the user; they stay, and
// the mark rule, the jump and the chain with them.
func plan(c chain, h have, want []ipmasq.Rule, owns func(ipmasq.Rule) bool) *script {
	s := &script{chain: c}
	marks, ours, others := sortOut(h.own, owns)
	own := slices.DeleteFunc(slices.Clone(want), ipmasq.Rule.Shared)
	switch {
	case len(own) > 0:
		s.have(h, marks, ours, want)
	case len(others) > 0:
		s.delAll(ours)
	case h.exists:
		s.remove(h)
	}
	return s
}

// placed is a rule and where in the chain it is.
type placed struct {
	entry
	at int
}

// sortOut tells the mark rules, our rules, and those of others apart.
func sortOut(list []entry, owns func(ipmasq.Rule) bool) (marks, ours, others []placed) {
	for i, e := range list {
		p := placed{e, i}
		switch {
		case e.commented && owns(e.rule):
			ours = append(ours, p)
		case e.commented && e.plain && e.rule == ipmasq.Rule{Marked: true}:
			marks = append(marks, p)
		default:
			others = append(others, p)
		}
	}
	return marks, ours, others
}

// have makes the chain hold the wanted rules in their order, the mark rule
// before them, and the kernel's chain jump to it once. What is right stays where
// it is: a chain can have thousands of rules.
func (s *script) have(h have, marks, ours []placed, want []ipmasq.Rule) {
	if !h.exists {
		s.put++
		s.line("-N", s.chain.name)
	}
	own := slices.DeleteFunc(slices.Clone(want), ipmasq.Rule.Shared)
	stays := ipmasq.KeepInOrder(said(ours), own)
	var n numbers
	if len(own) < len(want) {
		n = s.mark(marks, firstOf(ours, stays))
	}
	kept := make([]bool, len(ours))
	for _, i := range stays {
		if i >= 0 {
			kept[i] = true
		}
	}
	for i, p := range ours {
		if !kept[i] {
			n.gone = append(n.gone, p.at)
			s.del(s.chain.name, p.text)
		}
	}
	slices.Sort(n.gone)
	s.fill(own, ours, stays, n)
	s.jump(h.base)
}

// said returns what the rules say. Those that say more than an ipmasq.Rule can
// are like none that is wanted.
func said(list []placed) []ipmasq.Rule {
	out := make([]ipmasq.Rule, len(list))
	for i, p := range list {
		if p.plain {
			out[i] = p.rule
		}
	}
	return out
}

// firstOf returns the first of our rules that stays, or nil.
func firstOf(ours []placed, stays []int) *placed {
	for _, i := range stays {
		if i >= 0 {
			return &ours[i]
		}
	}
	return nil
}

// numbers tells which number a rule has while a script runs.
type numbers struct {
	gone  []int // where rules were that are deleted, in order
	added int   // how many were put before those that follow
}

// of returns the number of the rule that was at this place.
func (n numbers) of(at int) int {
	before, _ := slices.BinarySearch(n.gone, at)
	return 1 + at - before + n.added
}

// fill puts the wanted rules that are missing, each in front of the next one
// that stays.
func (s *script) fill(own []ipmasq.Rule, ours []placed, stays []int, n numbers) {
	for from := 0; from < len(own); {
		to := from
		for to < len(own) && stays[to] < 0 {
			to++
		}
		for _, r := range own[from:to] {
			text := s.chain.format(r)
			if to == len(own) {
				s.add(s.chain.name, text)
				continue
			}
			s.insert(s.chain.name, n.of(ours[stays[to]].at), text)
			n.added++
		}
		from = to + 1
	}
}

// mark makes the chain hold the mark rule once, before those of our rules that
// stay where they are.
func (s *script) mark(marks []placed, first *placed) numbers {
	if len(marks) == 1 && (first == nil || marks[0].at < first.at) {
		return numbers{}
	}
	s.delAll(marks)
	s.insert(s.chain.name, 1, s.chain.format(ipmasq.Rule{Marked: true}))
	n := numbers{added: 1}
	for _, m := range marks {
		n.gone = append(n.gone, m.at)
	}
	return n
}

func (s *script) delAll(list []placed) {
	for _, p := range list {
		s.del(s.chain.name, p.text)
	}
}

// jump makes the kernel's chain jump to ours once.
func (s *script) jump(base []entry) {
	jumps := 0
	for _, e := range base {
		if e.commented && e.text == s.chain.jump {
			jumps++
		}
	}
	if jumps == 0 {
		s.add(s.chain.base, s.chain.jump)
	}
	for range jumps - 1 {
		s.del(s.chain.base, s.chain.jump)
	}
}

// remove takes everything away. When somebody adds a rule meanwhile, the chain
// is not empty, and the whole transaction fails.
func (s *script) remove(h have) {
	for _, e := range h.base {
		if e.jump == s.chain.name {
			s.del(s.chain.base, e.text)
		}
	}
	for _, e := range h.own {
		s.del(s.chain.name, e.text)
	}
	s.deleted++
	s.line("-X", s.chain.name)
}
