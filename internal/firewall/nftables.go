package firewall

import (
	"fmt"
	"iter"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"

	"flannel/internal/ipfam"
)

var (
	families    = ipfam.Pair[nftables.TableFamily]{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}
	nftFamilies = ipfam.Pair[string]{"ip", "ip6"}
)

// NFTables are the rules in nf_tables, among them those of iptables-nft.
type NFTables struct {
	conn *nftables.Conn
	base []*nftables.Chain
}

// ReadNFTables lists the base chains. Drops reads the rules; those that cannot be
// read count as if no packet met them.
func ReadNFTables(conn *nftables.Conn) (NFTables, error) {
	all, err := conn.ListChains()
	if err != nil {
		return NFTables{}, fmt.Errorf("list chains of nf_tables: %w", err)
	}
	filters := func(c *nftables.Chain) bool { return c.Hooknum != nil && c.Type == nftables.ChainTypeFilter }
	return NFTables{conn, slices.DeleteFunc(all, func(c *nftables.Chain) bool { return !filters(c) })}, nil
}

// Drops finds what drops a packet.
func (n NFTables) Drops(p Packet) []Finding {
	var out []Finding
	for _, c := range n.base {
		inet := c.Table.Family == nftables.TableFamilyINet
		if Hook(*c.Hooknum) != p.Hook || c.Table.Family != families[p.Family] && !inet {
			continue
		}
		base := Base{Chain: c.Name, Table: nftFamilies[p.Family] + " " + c.Table.Name}
		switch {
		case inet:
			base.Table = "inet " + c.Table.Name
		case c.Table.Name == "filter" && c.Name == iptablesChains[p.Hook]:
			base.Program = programs[p.Family] + "-nft" // without the suffix it may be the legacy one
		}
		w := walk{base: base, packet: p.known(), firewalld: c.Table.Name == "firewalld"}
		out = append(out, w.drops(nftChain{n.conn, c.Table, c.Name, p.Family, c.Policy})...)
	}
	return out
}

// iptablesChains are the base chains of iptables.
var iptablesChains = map[Hook]string{Input: "INPUT", Forward: "FORWARD", Output: "OUTPUT"}

// programs are those of iptables, without the suffix that tells the kinds apart.
var programs = ipfam.Pair[string]{"iptables", "ip6tables"}

// nftChain is a chain of nf_tables.
type nftChain struct {
	conn   *nftables.Conn
	table  *nftables.Table
	label  string
	family ipfam.Family
	policy *nftables.ChainPolicy
}

func (c nftChain) name() string { return c.label }

func (c nftChain) rules(packet *known) iter.Seq[*rule] {
	return func(yield func(*rule) bool) {
		list, err := c.conn.GetRules(c.table, &nftables.Chain{Name: c.label, Table: c.table})
		if err != nil {
			return
		}
		for _, r := range list {
			if !yield(c.read(r, packet)) {
				return
			}
		}
		if c.policy != nil && *c.policy == nftables.ChainPolicyDrop {
			yield(&rule{holds: yes, verdict: Drop})
		}
	}
}

func (c nftChain) read(r *nftables.Rule, packet *known) *rule {
	out := &rule{holds: yes, number: r.Handle}
	conditions, all := Conditions(c.family, r.Exprs)
	for _, condition := range conditions {
		out.add(condition, true, packet)
	}
	if !all {
		out.add(Condition{}, false, packet)
	}
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Verdict:
			out.verdict = nftVerdicts[e.Kind]
			if e.Chain != "" {
				out.to = nftChain{conn: c.conn, table: c.table, label: e.Chain, family: c.family}
			}
		case *expr.Reject:
			out.verdict = Drop
		case *expr.Target:
			if e.Name == "REJECT" {
				out.verdict = Drop
			}
		}
	}
	return out
}

var nftVerdicts = map[expr.VerdictKind]Verdict{
	expr.VerdictAccept: Accept, expr.VerdictDrop: Drop, expr.VerdictReturn: toCaller,
	expr.VerdictJump: jump, expr.VerdictGoto: jumpForGood,
}

// operand is what a register holds: a field, perhaps under a mask.
type operand struct {
	field Field
	mask  []byte
}

// Conditions returns the conditions of a rule that are understood. It reports
// whether these are all.
func Conditions(f ipfam.Family, list []expr.Any) (out []Condition, all bool) {
	all = true
	add := func(c Condition, ok bool) {
		if ok {
			out = append(out, c)
		}
		all = all && ok
	}
	registers := map[uint32]operand{}
	load := func(register uint32, o operand, ok bool) {
		delete(registers, register)
		if ok {
			registers[register] = o
		}
	}
	for _, e := range list {
		switch e := e.(type) {
		case *expr.Payload:
			field, ok := payloadField(f, e)
			load(e.DestRegister, operand{field: field}, ok)
		case *expr.Meta:
			field, ok := metaFields[e.Key]
			load(e.Register, operand{field: field}, ok && !e.SourceRegister)
		case *expr.Ct:
			load(e.Register, operand{}, false)
		case *expr.Bitwise:
			o, ok := registers[e.SourceRegister]
			load(e.DestRegister, operand{o.field, e.Mask}, ok && o.mask == nil && zero(e.Xor))
		case *expr.Cmp:
			o, ok := registers[e.Register]
			c, understood := o.compare(f, e)
			add(c, ok && understood)
		case *expr.Match:
			if _, comment := e.Info.(*xt.Comment); !comment {
				if c, has, ok := destinationPort(f, e.Info); has || !ok {
					add(c, ok)
				}
			}
		case *expr.Verdict, *expr.Counter, *expr.Log, *expr.Reject, *expr.Target, *expr.Immediate, *expr.Masq:
		default:
			all = false
		}
	}
	return out, all
}

// compare returns a condition on the field that a register holds.
func (o operand) compare(f ipfam.Family, e *expr.Cmp) (Condition, bool) {
	c := Condition{Field: o.field, Values: o.field.values(f, e.Data, 8*len(e.Data)), Not: e.Op == expr.CmpOpNeq}
	ok := c.Not || e.Op == expr.CmpOpEq
	if ok && o.mask != nil {
		c.Values, ok = o.field.masked(f, e.Data, o.mask)
	}
	return c, ok && c.Values.IsValid()
}

var metaFields = map[expr.MetaKey]Field{
	expr.MetaKeyNFPROTO: Family, expr.MetaKeyL4PROTO: Protocol,
	expr.MetaKeyIIFNAME: In, expr.MetaKeyOIFNAME: Out,
}

// headers are the offsets of the fields in the header of a network packet.
var headers = ipfam.Pair[map[uint32]Field]{
	{12: Src, 16: Dst, 9: Protocol},
	{8: Src, 24: Dst, 6: Protocol},
}

// payloadField returns the field that is loaded from a packet. A prefix of whole
// bytes may be loaded without the rest.
func payloadField(f ipfam.Family, e *expr.Payload) (Field, bool) {
	switch e.Base {
	case expr.PayloadBaseNetworkHeader:
		field, ok := headers[f][e.Offset]
		return field, ok
	case expr.PayloadBaseTransportHeader:
		return Port, e.Offset == 2 && e.Len == 2
	}
	return 0, false
}
