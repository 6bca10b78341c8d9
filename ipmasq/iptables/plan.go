package iptables

import (
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
	chain        chain
	lines        []string
	put, deleted int
}

// text returns the transaction, or nothing if nothing is to be done.
func (s *script) text() string {
	if len(s.lines) == 0 {
		return ""
	}
	return "*" + string(s.chain.Table) + "\n" + strings.Join(s.lines, "\n") + "\nCOMMIT\n"
}

func (s *script) putLine(words ...string) {
	s.put++
	s.lines = append(s.lines, strings.Join(words, " "))
}
func (s *script) delLine(words ...string) {
	s.deleted++
	s.lines = append(s.lines, strings.Join(words, " "))
}

// plan writes what changes the chain as planned, and the jump to it.
func plan(c chain, h have, want []ipmasq.Rule, owns func(ipmasq.Rule) bool) *script {
	s := &script{chain: c}
	edit := ipmasq.Plan(c.found(h.own, want, owns), h.exists, want)
	if edit.Create {
		s.putLine("-N", c.Name)
	}
	if edit.Remove {
		s.noJumps(h.base)
	}
	for _, i := range edit.Delete {
		s.delLine("-D", c.Name, h.own[i].text)
	}
	s.puts(edit, want, len(h.own))
	switch {
	case edit.Remove:
		// If somebody adds a rule meanwhile, the chain is not empty, and the whole
		// transaction fails.
		s.delLine("-X", c.Name)
	case len(want) > 0:
		s.jump(h.base)
	}
	return s
}

// found returns what the plan needs to know of the rules of our chain.
func (c chain) found(list []entry, want []ipmasq.Rule, owns func(ipmasq.Rule) bool) []ipmasq.Found {
	return ipmasq.Compare(list, ipmasq.Meanings(want, true), func(e entry) (ipmasq.Meaning, ipmasq.Owner) {
		m := e.means
		switch {
		case m.Commented && owns(m.Rule):
			return m, ipmasq.Own
		case m.Commented && m.Plain && m.Rule == ipmasq.Rule{Marked: true}:
			return m, ipmasq.Shared
		}
		return m, ipmasq.Other
	})
}

// puts writes the rules that are missing. iptables numbers those that a rule may be
// put in front of, from 1, as they are after the commands so far.
func (s *script) puts(edit ipmasq.Edit, want []ipmasq.Rule, found int) {
	deleted := 0
	for n, p := range edit.Puts {
		text := s.chain.format(want[p.Rule])
		if p.Before == found {
			s.putLine("-A", s.chain.Name, text)
			continue
		}
		for deleted < len(edit.Delete) && edit.Delete[deleted] < p.Before {
			deleted++
		}
		s.putLine("-I", s.chain.Name, strconv.Itoa(max(p.Before, 0)-deleted+n+1), text)
	}
}

// jump makes the kernel's chain jump to ours once.
func (s *script) jump(base []entry) {
	jumps := 0
	for _, e := range base {
		if e.means.Commented && e.text == s.chain.jump() {
			jumps++
		}
	}
	if jumps == 0 {
		s.putLine("-A", s.chain.Base, s.chain.jump())
	}
	for range jumps - 1 {
		s.delLine("-D", s.chain.Base, s.chain.jump())
	}
}

// noJumps makes the kernel's chain not jump to ours.
func (s *script) noJumps(base []entry) {
	for _, e := range base {
		if e.means.Jump {
			s.delLine("-D", s.chain.Base, e.text)
		}
	}
}
