package iptables

import (
	"slices"
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

func (s *script) add(in, rule string)    { s.put++; s.line("-A", in, rule) }
func (s *script) insert(in, rule string) { s.put++; s.line("-I", in, "1", rule) }
func (s *script) del(in, rule string)    { s.deleted++; s.line("-D", in, rule) }
func (s *script) line(words ...string)   { s.lines = append(s.lines, strings.Join(words, " ")) }

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
// before them, and the kernel's chain jump to it once.
func (s *script) have(h have, marks, ours []placed, want []ipmasq.Rule) {
	if !h.exists {
		s.put++
		s.line("-N", s.chain.name)
	}
	own := slices.DeleteFunc(slices.Clone(want), ipmasq.Rule.Shared)
	same := leading(ours, own)
	if len(own) < len(want) {
		s.mark(marks, ours[:same])
	}
	s.delAll(ours[same:])
	for _, r := range own[same:] {
		s.add(s.chain.name, s.chain.format(r))
	}
	s.jump(h.base)
}

// leading counts the rules at the front that are as wanted and can stay. None
// can when one of them is there twice: what is deleted by its text is the first
// of two.
func leading(ours []placed, want []ipmasq.Rule) int {
	same := 0
	for same < min(len(want), len(ours)) && ours[same].plain && ours[same].rule == want[same] {
		same++
	}
	for _, p := range ours[same:] {
		if p.plain && slices.Contains(want[:same], p.rule) {
			return 0
		}
	}
	return same
}

// mark makes the chain hold the mark rule once, before those of our rules that
// stay where they are.
func (s *script) mark(marks, stay []placed) {
	if len(marks) == 1 && (len(stay) == 0 || marks[0].at < stay[0].at) {
		return
	}
	s.delAll(marks)
	s.insert(s.chain.name, s.chain.format(ipmasq.Rule{Marked: true}))
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
