// Package ipmasq decides which packets of the overlay network are masqueraded and
// forwarded: the rules themselves, without the tool that writes them to the kernel.
package ipmasq

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flannel/internal/ipfam"
)

// Table is a table of the packet filter.
type Table string

// The tables that have rules.
const (
	Nat    Table = "nat"
	Filter Table = "filter"
)

// Tables lists the tables in the order in which they are written.
func Tables() [2]Table { return [2]Table{Nat, Filter} }

// Chain is a chain of ours in a table of iptables, and the base chain that jumps to
// it. Names and comment, which all our rules have, are part of the contract with
// flannel.
type Chain struct {
	Table               Table
	Base, Name, Comment string
}

// Chains are those of each table.
var Chains = map[Table]Chain{
	Nat:    {Nat, "POSTROUTING", "FLANNEL-POSTRTG", "flanneld masq"},
	Filter: {Filter, "FORWARD", "FLANNEL-FWD", "flanneld forward"},
}

// Mark is the bit that kube-proxy sets on packets that it masquerades itself.
const Mark = 0x4000

// Action is what a rule does with the packets that it matches.
type Action uint8

// The actions.
const (
	// Return leaves the packet as it is.
	Return Action = iota
	// Masquerade gives the packet the address of the interface it leaves by.
	Masquerade
	// Accept lets the packet be forwarded.
	Accept
)

// Match is a condition on one address of a packet. The zero value holds for
// every packet.
type Match struct {
	Prefix netip.Prefix
	// Not inverts the condition.
	Not bool
}

// Any reports whether the condition holds for every packet.
func (m Match) Any() bool { return !m.Prefix.IsValid() }

// Rule is one rule. All its conditions must hold.
type Rule struct {
	// Marked matches packets with the bit Mark.
	Marked   bool
	Src, Dst Match
	Do       Action
	// RandomFully makes a masqueraded packet's port unpredictable.
	RandomFully bool
}

// Shared reports whether the rule belongs to all daemons of this host: it
// names no network.
func (r Rule) Shared() bool { return r.Src.Any() && r.Dst.Any() }

// multicast is never masqueraded.
var multicast = ipfam.Pair[netip.Prefix]{
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("ff00::/8"),
}

// Config is what the rules of one daemon depend on.
type Config struct {
	// Network is the overlay network, Subnet this node's part of it. A family
	// without either has no rules.
	Network, Subnet ipfam.Pair[netip.Prefix]
	// Previous are networks of an earlier run, whose rules are removed.
	Previous ipfam.Pair[[]netip.Prefix]
	// Exclude are destinations for which packets are not masqueraded.
	Exclude []netip.Prefix
	// Masquerade asks for the rules of Nat, Forward for those of Filter.
	Masquerade, Forward bool
	// RandomFully makes ports of masqueraded packets unpredictable.
	RandomFully bool
}

// Equal reports whether two configurations are the same.
func (c Config) Equal(o Config) bool {
	return c.Network == o.Network && c.Subnet == o.Subnet &&
		slices.Equal(c.Previous[ipfam.V4], o.Previous[ipfam.V4]) &&
		slices.Equal(c.Previous[ipfam.V6], o.Previous[ipfam.V6]) &&
		slices.Equal(c.Exclude, o.Exclude) &&
		c.Masquerade == o.Masquerade && c.Forward == o.Forward && c.RandomFully == o.RandomFully
}

// None returns a configuration without rules, which owns the same ones: they are
// removed.
func (c Config) None() Config {
	c.Masquerade, c.Forward = false, false
	return c
}

// Concerns reports whether a family has, or may have had, rules.
func (c Config) Concerns(f ipfam.Family) bool {
	return c.Network[f].IsValid() || len(c.Previous[f]) > 0
}

// Owns reports whether rules that name this network are this daemon's.
func (c Config) Owns(p netip.Prefix) bool {
	f := ipfam.Of(p.Addr())
	return p.IsValid() && (p == c.Network[f] || slices.Contains(c.Previous[f], p))
}

// Networks returns those whose rules are this daemon's: the previous ones, and last
// the current one.
func (c Config) Networks(f ipfam.Family) []netip.Prefix {
	all := slices.Concat(c.Previous[f], []netip.Prefix{c.Network[f]})
	return slices.DeleteFunc(all, func(p netip.Prefix) bool { return !p.IsValid() })
}

// OwnsRule reports whether a rule is this daemon's.
func (c Config) OwnsRule(r Rule) bool { return c.Owns(r.Src.Prefix) || c.Owns(r.Dst.Prefix) }

// Rules returns the rules of a table in one family, in their order.
func (c Config) Rules(f ipfam.Family, t Table) []Rule {
	network, subnet := c.Network[f], c.Subnet[f]
	if !network.IsValid() || !subnet.IsValid() {
		return nil
	}
	switch {
	case t == Nat && c.Masquerade:
		return c.masquerade(f, network, subnet)
	case t == Filter && c.Forward:
		return []Rule{
			{Src: Match{Prefix: network}, Do: Accept},
			{Dst: Match{Prefix: network}, Do: Accept},
		}
	}
	return nil
}

func (c Config) masquerade(f ipfam.Family, network, subnet netip.Prefix) []Rule {
	inside, outside := Match{Prefix: network}, Match{Prefix: network, Not: true}
	local := Match{Prefix: subnet}
	rules := []Rule{
		// kube-proxy masquerades these itself.
		{Marked: true, Do: Return},
		// Pods see each other's addresses.
		{Src: local, Dst: inside, Do: Return},
		{Src: inside, Dst: local, Do: Return},
		// What comes from outside to a pod of this node keeps its source.
		{Src: outside, Dst: local, Do: Return},
	}
	for _, p := range c.excluded(f, subnet) {
		rules = append(rules, Rule{Src: inside, Dst: Match{Prefix: p}, Do: Return})
	}
	return append(rules,
		Rule{Src: inside, Dst: Match{Prefix: multicast[f], Not: true}, Do: Masquerade, RandomFully: c.RandomFully},
		// From this node to pods elsewhere: the answer must find the tunnel.
		Rule{Src: outside, Dst: inside, Do: Masquerade, RandomFully: c.RandomFully},
	)
}

// excluded returns the excluded destinations of one family, each once, without
// the subnet, which has that rule. A prefix of length zero is all addresses.
func (c Config) excluded(f ipfam.Family, subnet netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	seen := map[netip.Prefix]bool{subnet: true}
	for _, p := range c.Exclude {
		if !p.IsValid() || ipfam.Of(p.Addr()) != f {
			continue
		}
		if p.Bits() == 0 {
			return []netip.Prefix{{}}
		}
		if p = p.Masked(); !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}

// Change counts the rules, chains, jumps and elements of sets of one table that
// were written.
type Change struct{ Put, Deleted int }

// Changes counts what was written, by table; tables without a change are
// absent.
type Changes map[Table]Change

// String describes for people what was written.
func (c Changes) String() string {
	var parts []string
	for _, t := range Tables() {
		if n, ok := c[t]; ok {
			parts = append(parts, fmt.Sprintf("%s: %d put, %d deleted", t, n.Put, n.Deleted))
		}
	}
	return strings.Join(parts, "; ")
}

// Add counts a change; none leaves no trace.
func (c Changes) Add(t Table, put, deleted int) {
	if put+deleted > 0 {
		c[t] = Change{c[t].Put + put, c[t].Deleted + deleted}
	}
}
