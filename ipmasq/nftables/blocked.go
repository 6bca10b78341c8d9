package nftables

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// Blocked returns a line for each chain outside our tables that drops what the
// overlay forwards, with the command that lets it pass. An accept elsewhere
// cannot undo such a drop.
//
// Only rules that hold for every packet, or for every packet of the network,
// are judged; all others are taken not to match. Nothing is read again while
// nothing has changed.
func (d *Driver) Blocked(_ context.Context, c ipmasq.Config) ([]string, error) {
	generation, err := d.Generation()
	if err != nil {
		return nil, nil //nolint:nilerr // a kernel without nf_tables drops nothing there
	}
	j := &d.judged
	if j.known && j.generation == generation && j.config.Equal(c) {
		return j.lines, nil
	}
	lines, err := d.look(c)
	j.known, j.generation, j.config, j.lines = err == nil, generation, c, lines
	return lines, err
}

// look reads the chains of others.
func (d *Driver) look(c ipmasq.Config) ([]string, error) {
	conn, err := d.open()
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	all, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	var lines []string
	for f, network := range ipfam.Prefixes(c.Network) {
		for _, base := range all {
			if !forwards(base, f) {
				continue
			}
			j := judge{conn: conn, family: f, network: network, seen: &seen{firewalld: base.Table.Name == "firewalld"}}
			// From a pod and to a pod: both must pass. firewalld lets answers pass, and
			// which zone a packet is in depends on its source alone.
			verdict := j.base(base, true)
			if !j.seen.firewalld {
				verdict = max(verdict, j.base(base, false))
			}
			if verdict == drops {
				lines = append(lines, explain(base, network, *j.seen))
			}
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines), nil
}

// forwards reports whether a chain of others sees forwarded packets of a
// family.
func forwards(c *nftables.Chain, f ipfam.Family) bool {
	return c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward &&
		(c.Table.Family == families[f] || c.Table.Family == nftables.TableFamilyINet) &&
		c.Type == nftables.ChainTypeFilter && !slices.Contains(tableNames[:], c.Table.Name)
}

// outcome is what a chain does with a packet.
type outcome int

const (
	goesOn outcome = iota
	passes
	drops
)

// maxDepth is how deep jumps are followed; the kernel allows 16.
const maxDepth = 16

// judge follows the packets of one network, from it or to it, through chains.
type judge struct {
	conn    *nftables.Conn
	family  ipfam.Family
	network netip.Prefix
	src     bool
	seen    *seen
}

// seen is what was noticed on the way.
type seen struct {
	// unsure says that a rule that was not judged may accept.
	unsure bool
	// firewalld says that the chain is firewalld's.
	firewalld bool
}

// base says what a chain of the kernel, with its policy, does.
func (j judge) base(c *nftables.Chain, src bool) outcome {
	j.src = src
	switch verdict := j.chain(c.Table, c.Name, maxDepth); {
	case verdict != goesOn:
		return verdict
	case c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop:
		return drops
	}
	return passes
}

func (j judge) chain(t *nftables.Table, name string, depth int) outcome {
	if depth == 0 {
		return goesOn
	}
	list, err := j.conn.GetRules(t, &nftables.Chain{Name: name, Table: t})
	if err != nil {
		return goesOn // a rule that cannot be read is not judged
	}
	for _, r := range list {
		verdict := j.verdict(r.Exprs)
		switch verdict.kind {
		case expr.VerdictAccept:
			return passes
		case expr.VerdictDrop:
			return drops
		case expr.VerdictReturn:
			return goesOn
		case expr.VerdictJump, expr.VerdictGoto:
			if out := j.chain(t, verdict.chain, depth-1); out != goesOn || verdict.kind == expr.VerdictGoto {
				return out
			}
		}
	}
	return goesOn
}

// action is what a rule does with every packet that is judged.
type action struct {
	kind  expr.VerdictKind
	chain string
}

// nothing is the action of a rule that does not hold for every packet.
var nothing = action{kind: expr.VerdictContinue}

func (j judge) verdict(list []expr.Any) action {
	conditions := 0
	for i, e := range list {
		switch e := e.(type) {
		case *expr.Verdict:
			j.seen.firewalld = j.seen.firewalld || ipmasq.OfFirewalld(e.Chain)
			if !j.always(list, conditions) {
				j.seen.unsure = j.seen.unsure || e.Kind == expr.VerdictAccept || e.Chain != ""
				return nothing
			}
			return action{e.Kind, e.Chain}
		case *expr.Reject:
			if !j.always(list, conditions) {
				return nothing
			}
			return action{kind: expr.VerdictDrop}
		case *expr.Target:
			if e.Name != "REJECT" || !j.always(list, conditions) {
				return nothing
			}
			return action{kind: expr.VerdictDrop}
		case *expr.Match:
			if e.Name != "comment" {
				conditions++
			}
		case *expr.Cmp:
			if i == 0 || !j.ofFamily(list[i-1], e) {
				conditions++
			}
		case *expr.Lookup, *expr.Range, *expr.Limit, *expr.Connlimit, *expr.Fib, *expr.Dynset, *expr.Quota:
			conditions++
		}
	}
	return nothing
}

// ofFamily recognises the condition that a packet is of the judged family.
func (j judge) ofFamily(load expr.Any, c *expr.Cmp) bool {
	m, ok := load.(*expr.Meta)
	return ok && m.Key == expr.MetaKeyNFPROTO && c.Op == expr.CmpOpEq && bytes.Equal(c.Data, []byte{byte(families[j.family])})
}

// always reports whether the conditions of a rule hold for every packet that is
// judged: there are none, or the only one is on its address.
func (j judge) always(list []expr.Any, conditions int) bool {
	if conditions == 0 {
		return true
	}
	found := sides(j.family, list)
	if conditions != 1 || len(found) != 1 {
		return false
	}
	s := found[0]
	return s.src == j.src && !s.Not && s.Prefix.Bits() <= j.network.Bits() && s.Prefix.Contains(j.network.Addr())
}

// explain says which chain drops, and what helps.
func explain(c *nftables.Chain, network netip.Prefix, s seen) string {
	t := c.Table
	family := map[nftables.TableFamily]string{
		nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet",
	}[t.Family]
	command := ""
	word := cmp.Or(map[bool]string{true: "ip6"}[network.Addr().Is6()], "ip")
	switch {
	case s.firewalld:
		command = ipmasq.FirewalldCommand(network)
	case t.Name == "filter" && c.Name == "FORWARD" && family != "inet":
		tool := word + "tables-nft" // without the suffix it may be the legacy one
		command = fmt.Sprintf("%s -I FORWARD -s %s -j ACCEPT && %s -I FORWARD -d %s -j ACCEPT", tool, network, tool, network)
	default:
		rule := fmt.Sprintf("nft insert rule %s %s %s %s", family, t.Name, c.Name, word)
		command = fmt.Sprintf("%s saddr %s accept && %s daddr %s accept", rule, network, rule, network)
	}
	unless := ""
	if s.unsure {
		unless = " that no rule with other conditions accepts"
	}
	return fmt.Sprintf("chain %s of table %s %s drops forwarded packets of %s%s; let them pass with: %s",
		c.Name, family, t.Name, network, unless, command)
}
