package iptables

import (
	"fmt"
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// LegacyBlocked returns a line for each family in which the chain FORWARD of
// legacy iptables drops what the overlay forwards, with the command that lets it
// pass. It needs no programs, and makes no table. kept says that a driver keeps
// our chain there. Else what an earlier run has left in it counts for nothing:
// nobody restores it.
//
// Only rules on nothing but the addresses are judged; all others are taken not
// to match.
func LegacyBlocked(c ipmasq.Config, kept bool) ([]string, error) {
	var lines []string
	for f, network := range ipfam.Prefixes(c.Network) {
		t, err := readLegacy(f, ipmasq.Filter)
		if err != nil {
			return nil, fmt.Errorf("read table %s of %s-%s: %w", ipmasq.Filter, names[f], Legacy, err)
		}
		if t.drops(network, kept) {
			lines = append(lines, t.explain(network, !kept && !t.drops(network, true)))
		}
	}
	return lines, nil
}

// explain says what drops, and what helps. left says that only rules of an earlier
// run let packets pass.
func (t legacyTable) explain(network netip.Prefix, left bool) string {
	ch := chains[ipmasq.Filter]
	program := names[t.family] + "-" + string(Legacy)
	what := fmt.Sprintf("chain %s of %s drops forwarded packets of %s", ch.base, program, network)
	if left {
		what += fmt.Sprintf(", but for what an earlier run has left in its chain %s, which nobody restores", ch.name)
	}
	command := fmt.Sprintf("%s -I %s -s %s -j ACCEPT && %s -I %s -d %s -j ACCEPT", program, ch.base, network, program, ch.base, network)
	if t.ofFirewalld() {
		command = ipmasq.FirewalldCommand(network)
	}
	return what + "; let them pass with: " + command
}

// needed reports whether packets of the overlay are dropped in a legacy table
// without our chain, so that it must be there.
func (t legacyTable) needed(c ipmasq.Config) bool {
	network := c.Network[t.family]
	return c.Forward && network.IsValid() && t.drops(network, false)
}

// drops reports whether packets from or to a network are dropped in FORWARD.
// kept says that our chain counts.
func (t legacyTable) drops(network netip.Prefix, kept bool) bool {
	if t.blob == nil {
		return false
	}
	own := t.chain(chains[ipmasq.Filter].name)
	for _, src := range []bool{true, false} {
		if !src && t.ofFirewalld() {
			break // it lets answers pass, and its zones depend on the source alone
		}
		j := judge{table: t, own: own, network: network, src: src, kept: kept}
		if j.chain(t.forward, maxDepth) == drops {
			return true
		}
	}
	return false
}

// ofFirewalld reports whether firewalld has made the chains.
func (t legacyTable) ofFirewalld() bool {
	return t.chain("FORWARD_ZONES") >= 0 || t.chain("FORWARD_IN_ZONES") >= 0
}

// outcome is what a chain does with a packet.
type outcome int

const (
	goesOn outcome = iota
	passes
	drops
)

// maxDepth bounds how deep jumps are followed.
const maxDepth = 16

// judge follows the packets of one network, from it or to it, through chains.
type judge struct {
	table legacyTable
	// own is where our chain begins.
	own       int
	network   netip.Prefix
	src, kept bool
}

func (j judge) chain(at, depth int) outcome {
	for depth > 0 {
		r, ok := j.table.rule(at)
		if !ok {
			return goesOn
		}
		next := at + r.size
		if !j.always(r) {
			at = next
			continue
		}
		switch {
		case r.target == "REJECT" || r.target == "" && r.verdict == verdictDrop:
			return drops
		case r.target == "" && r.verdict == verdictAccept:
			return passes
		case r.target == "" && r.verdict == verdictReturn, r.target == "ERROR":
			return goesOn
		case r.target == "" && r.verdict >= 0 && r.verdict != next:
			out := j.jump(r.verdict, depth)
			if out != goesOn || r.jumpsForGood {
				return out
			}
		}
		at = next
	}
	return goesOn
}

// jump says what a chain does that is jumped to.
func (j judge) jump(to, depth int) outcome {
	if to != j.own {
		return j.chain(to, depth-1)
	}
	if j.kept {
		return passes // its rules are restored
	}
	return goesOn
}

// always reports whether a rule holds for every packet that is judged: it has no
// condition, or the only one is on its address.
func (j judge) always(r legacyRule) bool {
	sides := []ipmasq.Match{r.src, r.dst}
	if !j.src {
		slices.Reverse(sides)
	}
	covers := sides[0].Any() || !sides[0].Not && sides[0].Prefix.Bits() <= j.network.Bits() && sides[0].Prefix.Contains(j.network.Addr())
	return !r.more && covers && sides[1].Any()
}
