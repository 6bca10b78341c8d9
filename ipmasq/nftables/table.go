package nftables

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// families as nf_tables numbers them.
var families = ipfam.Pair[nftables.TableFamily]{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}

// tableNames are those of our tables. The names are part of the contract with
// flannel.
var tableNames = ipfam.Pair[string]{"flannel-ipv4", "flannel-ipv6"}

// IsOurs reports whether this is one of our tables, named as nft does, with its
// family.
func IsOurs(table string) bool {
	_, name, _ := strings.Cut(table, " ")
	return slices.Contains(tableNames[:], name)
}

func ownTable(f ipfam.Family) *nftables.Table {
	return &nftables.Table{Name: tableNames[f], Family: families[f]}
}

// chain is where the rules of one table of the contract are.
type chain struct {
	table ipmasq.Table
	name  string
	kind  nftables.ChainType
	hook  *nftables.ChainHook
	at    *nftables.ChainPriority
}

// chains are those of each table.
var chains = map[ipmasq.Table]chain{
	ipmasq.Nat: {
		ipmasq.Nat, "postrtg", nftables.ChainTypeNAT,
		nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource,
	},
	ipmasq.Filter: {
		ipmasq.Filter, "forward", nftables.ChainTypeFilter,
		nftables.ChainHookForward, nftables.ChainPriorityFilter,
	},
}

// in returns the chain as it should be in the table of a family.
func (c chain) in(f ipfam.Family) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return &nftables.Chain{
		Name: c.name, Table: ownTable(f), Type: c.kind, Hooknum: c.hook, Priority: c.at, Policy: &accept,
	}
}

// right reports whether an existing chain has the right hook, and the policy that
// lets packets pass.
func (c chain) right(have *nftables.Chain) bool {
	return have.Type == c.kind && have.Hooknum != nil && *have.Hooknum == *c.hook &&
		have.Priority != nil && *have.Priority == *c.at &&
		have.Policy != nil && *have.Policy == nftables.ChainPolicyAccept
}

// commentOf returns the comment by which the owner of a rule recognises it. It has
// the network, unless all daemons of the host share the rule.
func (c chain) commentOf(r ipmasq.Rule, network netip.Prefix) string {
	comment := ipmasq.Chains[c.table].Comment
	if r.Shared() {
		return comment
	}
	return comment + " " + network.String()
}

// owner parses a comment. It reports whether it is one of this chain, and returns
// the network that it names.
func (c chain) owner(comment string) (network netip.Prefix, ok bool) {
	rest, ok := strings.CutPrefix(comment, ipmasq.Chains[c.table].Comment)
	if !ok || rest == "" {
		return netip.Prefix{}, ok
	}
	network, err := netip.ParsePrefix(strings.TrimPrefix(rest, " "))
	return network, err == nil
}

// wanted is a rule that the kernel should hold.
type wanted struct {
	rule    ipmasq.Rule
	exprs   []expr.Any
	comment string
}

// key returns the comment and the rule as netlink carries it. Rules that the library
// cannot write differ from all that are wanted.
func (w wanted) key(f ipfam.Family) string {
	out := []byte(w.comment + "\x00")
	for _, e := range w.exprs {
		b, err := expr.Marshal(byte(families[f]), e)
		if err != nil {
			return ""
		}
		out = append(out, b...)
	}
	return string(out)
}

// want returns the rules of a chain. One rule looks up the single addresses that are
// excluded.
func (c chain) want(f ipfam.Family, cfg ipmasq.Config) (rules []wanted, excluded []netip.Addr) {
	for _, r := range cfg.Rules(f, c.table) {
		w := wanted{r, exprs(f, r), c.commentOf(r, cfg.Network[f])}
		if a, ok := excludes(r, cfg.Network[f]); ok {
			if excluded = append(excluded, a); len(excluded) > 1 {
				continue
			}
			w.exprs = lookUp(f, cfg.Network[f])
		}
		rules = append(rules, w)
	}
	return rules, excluded
}

// commentIn returns the comment in a rule's user data; other programs may have
// put anything there.
func commentIn(data []byte) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		value := data[2 : 2+int(data[1])]
		if userdata.Type(data[0]) == userdata.TypeComment {
			return strings.TrimRight(string(value), "\x00")
		}
		data = data[2+len(value):]
	}
	return ""
}

// in returns the rule in a chain, as AddRule takes it.
func (w wanted) in(c *nftables.Chain) *nftables.Rule {
	return &nftables.Rule{
		Table: c.Table, Chain: c, Exprs: w.exprs,
		UserData: userdata.AppendString(nil, userdata.TypeComment, w.comment),
	}
}
