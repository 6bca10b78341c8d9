// Package firewall reads the packet filter's rules, whoever created them, and finds
// those that drop a packet.
package firewall

import (
	"fmt"
	"iter"
	"net/netip"
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
	// more is set if there are conditions that are not understood.
	more    bool
	verdict Verdict
	to      chain // of jump and jumpForGood
	// number is that which the program takes to name the rule; 0 is the policy of
	// a base chain.
	number uint64
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
		out = min(out, r.conditions[i].holds(p))
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
	// Table names the table with its family as nft does, such as "ip filter"; it
	// is empty for legacy iptables.
	Table string
	// Program writes rules to the chain; empty for nft.
	Program string
}

// String names the chain for people.
func (b Base) String() string {
	if b.Table == "" {
		return fmt.Sprintf("chain %s of %s", b.Chain, b.Program)
	}
	return fmt.Sprintf("chain %s of table %s", b.Chain, b.Table)
}

// Finding is a rule that drops packets.
type Finding struct {
	Base
	// Rule is the number of the rule in the chain In, for nft its handle; 0 is the
	// policy.
	In   string
	Rule uint64
	// Certain is set if the rule matches all the packets. Otherwise that depends on
	// what is not known of the packets, or of the rule.
	Certain bool
	// Understood is set if all conditions of the rule are.
	Understood bool
	// MayAccept is set if a rule ahead of this one may accept some of the packets.
	MayAccept bool
	// Firewalld is set if firewalld created the chain, or a chain that it jumps to.
	Firewalld bool
}

// Allow returns the command that lets the packets of a network pass the chain.
func (f Finding) Allow(network netip.Prefix) string {
	switch {
	case f.Firewalld:
		// Other rules in its chains are lost when firewalld reloads.
		return fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-source=%s && firewall-cmd --reload", network)
	case f.Program != "":
		insert := f.Program + " -I " + f.Chain
		return fmt.Sprintf("%s -s %s -j ACCEPT && %s -d %s -j ACCEPT", insert, network, insert, network)
	}
	insert := fmt.Sprintf("nft insert rule %s %s %s", f.Table, f.Chain, nftFamilies[ipfam.Of(network.Addr())])
	return fmt.Sprintf("%s saddr %s accept && %s daddr %s accept", insert, network, insert, network)
}

// ofFirewalld reports whether a chain to which another one jumps is firewalld's, in
// any packet filter: FORWARD_ZONES, FORWARD_IN_ZONES, filter_FORWARD_ZONES.
func ofFirewalld(chain string) bool {
	return strings.Contains(chain, "FORWARD_") && strings.HasSuffix(chain, "ZONES")
}

// Rules are those of one packet filter.
type Rules interface {
	// Drops finds the rules that may drop packets. If one of a base chain is certain,
	// it comes last.
	Drops(p Packet) []Finding
}

// Forwarded returns a finding for each base chain that drops all forwarded
// packets from a network, or all to it: both must pass.
func Forwarded(network netip.Prefix, rules Rules) []Finding {
	var out []Finding
	seen := map[Base]bool{}
	for _, p := range []Packet{{Src: network}, {Dst: network}} {
		p.Family, p.Hook = ipfam.Of(network.Addr()), Forward
		for _, f := range rules.Drops(p) {
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
	packet known
	// assume is what chains with these names do, whatever they hold.
	assume    map[string]Verdict
	findings  []Finding
	mayAccept bool
	firewalld bool
}

// maxDepth bounds how deep jumps are followed, as the kernel does.
const maxDepth = 16

// drops follows packets through a base chain, and returns the rules that may
// drop them.
func (w *walk) drops(c chain) []Finding {
	w.follow(c, maxDepth)
	for i := range w.findings {
		w.findings[i].Firewalld = w.firewalld
	}
	return w.findings
}

// follow returns what a chain does with the packets for sure. A jump with a
// condition that they may not meet is not followed.
func (w *walk) follow(c chain, depth int) Verdict {
	if depth == 0 {
		return Continue
	}
	for r := range c.rules() {
		w.firewalld = w.firewalld || r.to != nil && ofFirewalld(r.to.name())
		holds := r.holds(&w.packet)
		if holds != no && r.verdict == Drop {
			w.findings = append(w.findings, Finding{
				Base: w.base, In: c.name(), Rule: r.number,
				Certain: holds == yes, Understood: !r.more, MayAccept: w.mayAccept,
			})
		}
		switch {
		case holds == no:
		case holds == maybe:
			w.mayAccept = w.mayAccept || r.verdict == Accept || r.to != nil
		case r.verdict == Accept, r.verdict == Drop:
			return r.verdict
		case r.verdict == toCaller:
			return Continue
		case r.to != nil:
			if v := w.jump(r.to, depth-1); v != Continue || r.verdict == jumpForGood {
				return v
			}
		}
	}
	return Continue
}

func (w *walk) jump(to chain, depth int) Verdict {
	if w.assume != nil {
		if v, ok := w.assume[to.name()]; ok {
			return v
		}
	}
	return w.follow(to, depth)
}
