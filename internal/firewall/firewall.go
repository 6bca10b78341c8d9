// Package firewall reads the packet filter's rules, whoever created them, and finds
// those that drop a packet.
package firewall

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"flannel/internal/ipfam"
)

// Verdict is what a rule or a chain does with a packet.
type Verdict uint8

// The verdicts.
const (
	// Continue leaves the packet to the next rule.
	Continue Verdict = iota
	Accept
	Drop
	toCaller
	jump
	jumpForGood
)

// rule is one rule of a chain.
type rule struct {
	conditions []Condition
	lookups    []lookup
	// more is set if there are conditions that are not understood.
	more    bool
	verdict Verdict
	to      chain // of jump and jumpForGood
	// choice is a map of verdicts, in place of a single one.
	choice *lookup
	// reject is set if a drop is answered.
	reject bool
	// alters are the fields that the rule changes.
	alters []Field
	// number is that which the program takes to name the rule, for nft its handle;
	// position counts the rules of the chain from 1. Both are 0 for the policy of a base
	// chain.
	number   uint64
	position int
}

// lookup is a condition on a field: it is among the elements.
type lookup struct {
	field Field
	in    *elements
	not   bool
}

// add adds a condition; ok is false if it is not understood.
func (r *rule) add(c Condition, ok bool) {
	if !ok {
		r.more = true
		return
	}
	r.conditions = append(r.conditions, c)
}

// holds reports whether packets meet the rule.
func (r *rule) holds(p *known) answer {
	out := yes
	if r.more {
		out = maybe
	}
	for i := range r.conditions {
		if out = min(out, r.conditions[i].holds(p)); out == no {
			return no
		}
	}
	for i := range r.lookups {
		l := &r.lookups[i]
		found := l.in.includes(l.field, p)
		if l.not {
			found = yes - found
		}
		out = min(out, found)
	}
	return out
}

// chain is a list of rules.
type chain interface {
	name() string
	// rules reads the rules. Each is valid until the next one is read.
	rules() iter.Seq[*rule]
}

// Base is a base chain: the kernel itself gives packets to it.
type Base struct {
	Chain string
	// Table names the table with its family as nft does, such as "ip filter"; for
	// legacy iptables it is the table alone.
	Table string
	// Program writes rules to the chain; empty for nft.
	Program string
}

func (b Base) legacy() bool { return strings.HasSuffix(b.Program, "-legacy") }

// IsForward reports whether it is the chain of iptables in which flanneld puts rules
// that accept what pods send and receive.
func (b Base) IsForward() bool {
	return b.Program != "" && b.Chain == iptablesChains[Forward] && b.tableOfProgram() == defaultTable
}

// tableOfProgram is the table as the program of iptables names it.
func (b Base) tableOfProgram() string { return b.Table[strings.LastIndex(b.Table, " ")+1:] }

// String names the chain for people.
func (b Base) String() string {
	switch {
	case b.legacy() && b.Table == defaultTable:
		return fmt.Sprintf("chain %s of %s", b.Chain, b.Program)
	case b.legacy():
		return fmt.Sprintf("chain %s of table %s of %s", b.Chain, b.Table, b.Program)
	}
	return fmt.Sprintf("chain %s of table %s", b.Chain, b.Table)
}

// Finding is a rule that drops packets.
type Finding struct {
	Base
	Hook Hook
	// Rule is the number of the rule in the chain In, for nft its handle; 0 is the
	// policy. Position counts the rules of that chain from 1.
	In       string
	Rule     uint64
	Position int
	// Text is the rule as its program writes it, as far as it is understood.
	Text string
	// Certain is set if the rule matches all the packets. Otherwise that depends on
	// what is not known of the packets, or of the rule.
	Certain bool
	// Understood is set if all conditions of the rule are.
	Understood bool
	// MayAccept is set if a rule ahead of this one may accept some of the packets;
	// Doubtful if the conditions of one of those are not understood.
	MayAccept, Doubtful bool
	// Firewalld is set if firewalld created the chain, or a chain that it jumps to.
	Firewalld bool
}

// ofFirewalld reports whether a chain to which another one jumps is firewalld's, in
// any packet filter: FORWARD_ZONES, FORWARD_IN_ZONES, filter_FORWARD_ZONES, INPUT_ZONES.
func ofFirewalld(chain string) bool {
	return (strings.Contains(chain, "FORWARD_") || strings.Contains(chain, "INPUT_")) && strings.HasSuffix(chain, "ZONES")
}

// Rules are those of one packet filter.
type Rules interface {
	// bases returns the base chains that packets of a family meet at a hook.
	bases(p Packet, h Hook) []base
}

// base is a base chain with its rules.
type base struct {
	Base
	chain
	priority int
	assume   map[string]Verdict
}

// conntrackPriority is where the kernel finds out which connection a packet belongs to.
const conntrackPriority = -200

// Drops finds the rules that may drop packets on their path, in the kernel's order. With
// certainOnly the chains that packets may not reach are not read.
func Drops(p Packet, certainOnly bool, filters ...Rules) []Finding {
	var out []Finding
	numbers := [fields]number{mark: {0, ^uint32(0)}}
	fresh := true // no rule keeps the kernel from following the connection
	for _, h := range p.Hooks {
		var bases []base
		for _, f := range filters {
			bases = append(bases, f.bases(p, h)...)
		}
		slices.SortStableFunc(bases, func(a, b base) int { return cmp.Compare(a.priority, b.priority) })
		packet := p.at(h)
		early := h == Prerouting || h == Output
		for _, b := range bases {
			if fresh && h != Ingress && h != Egress && (!early || b.priority > conntrackPriority) {
				numbers[state] = number{stateNew, ^uint32(0)}
			}
			packet.numbers[mark], packet.numbers[state] = numbers[mark], numbers[state]
			w := walk{
				base: b.Base, hook: h, family: p.Family, packet: packet, assume: b.assume, certainOnly: certainOnly,
				firewalld: b.tableOfProgram() == "firewalld",
			}
			out = append(out, w.drops(b.chain)...)
			numbers[mark], numbers[state] = w.packet.numbers[mark], w.packet.numbers[state]
			fresh = fresh && !w.altered[state]
		}
	}
	return out
}

// Forwarded returns a finding for each base chain that drops all forwarded
// packets from a network, or all to it: both must pass. The bridge is that of the pods;
// without a name rules on interfaces count as if no packet met them.
func Forwarded(network netip.Prefix, bridge string, rules Rules) []Finding {
	var out []Finding
	seen := map[Base]bool{}
	for _, p := range []Packet{{Src: network, In: Interface{Name: bridge}}, {Dst: network, Out: Interface{Name: bridge}}} {
		p.Family, p.Hooks = ipfam.Of(network.Addr()), []Hook{Forward}
		for _, f := range Drops(p, true, rules) {
			// firewalld lets answers pass, and the zone of a packet depends on its source
			// alone.
			if f.Certain && !seen[f.Base] && !(f.Firewalld && p.Dst.IsValid()) {
				seen[f.Base] = true
				out = append(out, f)
			}
		}
	}
	return out
}

// walk follows packets through the chains behind one base chain.
type walk struct {
	base   Base
	hook   Hook
	family ipfam.Family
	packet known
	// assume is what chains with these names do, whatever they hold.
	assume      map[string]Verdict
	certainOnly bool
	findings    []Finding
	// mayAccept is set once a rule may have accepted some packets, doubtful if it is
	// not understood.
	mayAccept, doubtful bool
	firewalld           bool
	// altered are fields that a rule has changed.
	altered [fields]bool
	// doubted are the chains that were followed although packets may not reach them.
	doubted map[string]bool
}

// maxDepth bounds how deep jumps are followed, as the kernel does.
const maxDepth = 16

// drops follows packets through a base chain, and returns the rules that may
// drop them.
func (w *walk) drops(c chain) []Finding {
	w.follow(c, maxDepth, yes)
	for i := range w.findings {
		w.findings[i].Firewalld = w.firewalld
	}
	return w.findings
}

// follow returns what a chain does with the packets for sure; reached is whether they
// come to it.
func (w *walk) follow(c chain, depth int, reached answer) Verdict {
	if depth == 0 {
		return Continue
	}
	for r := range c.rules() {
		w.firewalld = w.firewalld || r.to != nil && ofFirewalld(r.to.name())
		holds := min(reached, r.holds(&w.packet))
		if holds == no {
			continue
		}
		for _, f := range r.alters {
			w.altered[f], w.packet.numbers[f] = true, number{}
		}
		var v Verdict
		if r.choice == nil {
			v = w.act(c, r, outcome{r.verdict, r.to}, holds, depth)
		} else {
			v = w.choose(c, r, holds, depth)
		}
		switch v {
		case Accept, Drop:
			return v
		case toCaller:
			return Continue
		}
	}
	return Continue
}

// outcome is what a rule does with packets that meet it.
type outcome struct {
	verdict Verdict
	to      chain
}

// choose acts on each outcome of a map that packets may meet.
func (w *walk) choose(c chain, r *rule, holds answer, depth int) Verdict {
	all, ok := r.choice.in.load()
	if !ok {
		w.mayAccept, w.doubtful = true, true
		return Continue
	}
	for i := range all {
		found := all[i].matches(r.choice.field, &w.packet)
		if found == no {
			continue
		}
		if v := w.act(c, r, all[i].outcome, min(holds, found), depth); v != Continue {
			return v
		}
		if found == yes {
			break
		}
	}
	return Continue
}

// act does what a rule says. It returns what then happens with the packets for sure:
// toCaller ends the chain.
func (w *walk) act(c chain, r *rule, o outcome, holds answer, depth int) Verdict {
	if o.verdict == Drop {
		w.findings = append(w.findings, Finding{
			Base: w.base, Hook: w.hook, In: c.name(), Rule: r.number, Position: r.position,
			Text: r.text(w.family, w.base.Program != ""), Certain: holds == yes, Understood: r.understood(),
			MayAccept: w.mayAccept, Doubtful: w.doubtful,
		})
	}
	if holds == maybe {
		if o.verdict == Accept || o.to != nil {
			w.mayAccept = true
			w.doubtful = w.doubtful || !r.clear(&w.packet)
		}
		if o.to != nil {
			w.perhaps(o.to, depth-1)
		}
		return Continue
	}
	switch {
	case o.verdict == toCaller, o.verdict == Accept, o.verdict == Drop:
		return o.verdict
	case o.to != nil:
		v := w.jump(o.to, depth-1)
		if v == Continue && o.verdict == jumpForGood {
			return toCaller
		}
		return v
	}
	return Continue
}

func (w *walk) jump(to chain, depth int) Verdict {
	if w.assume != nil {
		if v, ok := w.assume[to.name()]; ok {
			return v
		}
	}
	return w.follow(to, depth, yes)
}

// perhaps follows packets into a chain that some of them may reach, once.
func (w *walk) perhaps(to chain, depth int) {
	if w.certainOnly {
		// What it changes is not known.
		w.packet.numbers[mark] = number{}
		return
	}
	if w.doubted == nil {
		w.doubted = map[string]bool{}
	}
	if name := to.name(); !w.doubted[name] {
		w.doubted[name] = true
		w.follow(to, depth, maybe)
	}
}

// clear reports whether packets with some values of what is not known meet a rule, and
// others do not: its conditions are understood.
func (r *rule) clear(p *known) bool {
	if !r.understood() {
		return false
	}
	for i := range r.conditions {
		if c := &r.conditions[i]; c.mask != 0 && c.holds(p) == maybe {
			return false // the mark, for example, is what other rules make it
		}
	}
	return true
}

// understood reports whether all conditions of the rule are.
func (r *rule) understood() bool {
	for i := range r.lookups {
		if _, ok := r.lookups[i].in.load(); !ok {
			return false
		}
	}
	return !r.more
}

// elements are those of a set or a map.
type elements struct {
	list []element
	// read reads the list when it is needed first; it reports false if the elements
	// are not understood.
	read func() ([]element, bool)
	bad  bool
}

// element is one of a set: a range of values, or a number of which the bits matter.
type element struct {
	span
	number uint32
	// outcome is that of a map.
	outcome outcome
}

// load returns the elements; it reports false if they are not understood.
func (e *elements) load() ([]element, bool) {
	if e.read != nil {
		list, ok := e.read()
		e.list, e.bad, e.read = list, !ok, nil
	}
	return e.list, !e.bad
}

// matches reports whether packets have the value of an element.
func (e *element) matches(f Field, p *known) answer {
	if f >= mark {
		c := compareBits(f, e.number, ^uint32(0), false)
		return c.holds(p)
	}
	if !p.fields[f].IsValid() {
		return maybe
	}
	return e.includes(p.fields[f])
}

// includes reports whether a field of packets has one of the values.
func (e *elements) includes(f Field, p *known) answer {
	list, ok := e.load()
	if !ok {
		return maybe
	}
	out := no
	for i := range list {
		if out = max(out, list[i].matches(f, p)); out == yes {
			break
		}
	}
	return out
}
