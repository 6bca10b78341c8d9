package iptables

import (
	"slices"
	"strconv"
	"strings"

	"flannel/ipmasq"
)

// have is what the kernel holds of one table: the rules of the kernel's chain
// and, if it exists, of ours.
type have struct {
	base, own []entry
	exists    bool
}

// script is a list of commands for iptables-restore that turn what the kernel
// holds into what it should hold.
type script struct {
	chain chain
	// own are the rules of our chain after the commands so far.
	own          []*entry
	lines        []string
	put, deleted int
}

// text returns the transaction, or nothing if nothing is to be done.
func (s *script) text() string {
	if len(s.lines) == 0 {
		return ""
	}
	return "*" + string(s.chain.table) + "\n" + strings.Join(s.lines, "\n") + "\nCOMMIT\n"
}

func (s *script) line(words ...string) { s.lines = append(s.lines, strings.Join(words, " ")) }
func (s *script) add(in, rule string)  { s.put++; s.line("-A", in, rule) }
func (s *script) del(in, rule string)  { s.deleted++; s.line("-D", in, rule) }

// insert puts rules into our chain, in front of the one at this place.
func (s *script) insert(at int, rules ...ipmasq.Rule) {
	for i, r := range rules {
		s.put++
		s.line("-I", s.chain.name, strconv.Itoa(at+i+1), s.chain.format(r))
	}
	s.own = slices.Insert(s.own, at, make([]*entry, len(rules))...)
	for i, r := range rules {
		s.own[at+i] = &entry{rule: r}
	}
}

// delFunc deletes rules of our chain.
func (s *script) delFunc(which func(*entry) bool) {
	s.own = slices.DeleteFunc(s.own, func(e *entry) bool {
		if !which(e) {
			return false
		}
		s.del(s.chain.name, e.text)
		return true
	})
}

// plan compares what the kernel holds with the rules that it should hold. The
// chain may also hold rules of another daemon and of the user; they stay, and
// the mark rule, the jump and the chain with them.
func plan(c chain, h have, want []ipmasq.Rule, owns func(ipmasq.Rule) bool) *script {
	s := &script{chain: c}
	for i := range h.own {
		s.own = append(s.own, &h.own[i])
	}
	ours := func(e *entry) bool { return e.commented && owns(e.rule) }
	marks := func(e *entry) bool { return e.commented && e.plain && e.rule == ipmasq.Rule{Marked: true} }
	own := slices.DeleteFunc(slices.Clone(want), ipmasq.Rule.Shared)
	switch {
	case len(own) > 0:
		if !h.exists {
			s.put++
			s.line("-N", c.name)
		}
		keep := s.keep(ours, own)
		kept := make(map[*entry]bool, len(keep))
		for _, e := range keep {
			kept[e] = e != nil
		}
		stays := func(e *entry) bool { return kept[e] }
		if len(own) < len(want) {
			s.mark(marks, slices.IndexFunc(s.own, stays))
		}
		s.delFunc(func(e *entry) bool { return ours(e) && !stays(e) })
		s.fill(own, keep)
		s.jump(h.base)
	case slices.ContainsFunc(s.own, func(e *entry) bool { return !ours(e) && !marks(e) }):
		s.delFunc(ours)
	case h.exists:
		s.remove(h)
	}
	return s
}

// keep finds for each wanted rule the one in the chain that stays where it is, or
// nil: a chain can have thousands of rules.
func (s *script) keep(ours func(*entry) bool, own []ipmasq.Rule) []*entry {
	list := slices.DeleteFunc(slices.Clone(s.own), func(e *entry) bool { return !ours(e) })
	rules := make([]ipmasq.Rule, len(list))
	for i, e := range list {
		if e.plain { // others differ from all that are wanted
			rules[i] = e.rule
		}
	}
	out := make([]*entry, len(own))
	for i, at := range ipmasq.KeepInOrder(rules, own) {
		if at >= 0 {
			out[i] = list[at]
		}
	}
	return out
}

// mark makes the chain hold the mark rule once, before the first of our rules that
// stay.
func (s *script) mark(marks func(*entry) bool, first int) {
	at := slices.IndexFunc(s.own, marks)
	once := at >= 0 && !slices.ContainsFunc(s.own[at+1:], marks)
	if !once || first >= 0 && first < at {
		s.delFunc(marks)
		s.insert(0, ipmasq.Rule{Marked: true})
	}
}

// fill puts the wanted rules that are missing, each in front of the next one that
// stays.
func (s *script) fill(own []ipmasq.Rule, keep []*entry) {
	for from := 0; from < len(own); {
		to := from
		for to < len(own) && keep[to] == nil {
			to++
		}
		switch {
		case to == len(own):
			for _, r := range own[from:] {
				s.add(s.chain.name, s.chain.format(r))
			}
		case to > from:
			s.insert(slices.Index(s.own, keep[to]), own[from:to]...)
		}
		from = to + 1
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

// remove removes everything. If somebody adds a rule meanwhile, the chain is not
// empty, and the whole transaction fails.
func (s *script) remove(h have) {
	for _, e := range h.base {
		if e.jump == s.chain.name {
			s.del(s.chain.base, e.text)
		}
	}
	s.delFunc(func(*entry) bool { return true })
	s.deleted++
	s.line("-X", s.chain.name)
}
