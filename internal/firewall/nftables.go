package firewall

import (
	"fmt"
	"iter"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

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
	// rules are those of the chains that packets have come to.
	rules map[chainKey][]rule
}

// chainKey names a chain; family is that of the packets, which inet has both of.
type chainKey struct {
	table, chain string
	kind         nftables.TableFamily
	family       ipfam.Family
}

// ReadNFTables lists the base chains. Drops reads the rules of the chains that a
// packet comes to, once.
func ReadNFTables(conn *nftables.Conn) (NFTables, error) {
	all, err := conn.ListChains()
	if err != nil {
		return NFTables{}, fmt.Errorf("list chains of nf_tables: %w", err)
	}
	filters := func(c *nftables.Chain) bool { return c.Hooknum != nil && c.Type == nftables.ChainTypeFilter }
	base := slices.DeleteFunc(all, func(c *nftables.Chain) bool { return !filters(c) })
	return NFTables{conn, base, map[chainKey][]rule{}}, nil
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
		out = append(out, w.drops(nftChain{n, c.Table, c.Name, p.Family, c.Policy})...)
	}
	return out
}

// iptablesChains are the base chains of iptables.
var iptablesChains = map[Hook]string{Input: "INPUT", Forward: "FORWARD", Output: "OUTPUT"}

// programs are those of iptables, without the suffix that tells the kinds apart.
var programs = ipfam.Pair[string]{"iptables", "ip6tables"}

// nftChain is a chain of nf_tables.
type nftChain struct {
	tables NFTables
	table  *nftables.Table
	label  string
	family ipfam.Family
	policy *nftables.ChainPolicy
}

func (c nftChain) name() string { return c.label }

func (c nftChain) rules() iter.Seq[*rule] {
	key := chainKey{c.table.Name, c.label, c.table.Family, c.family}
	list, known := c.tables.rules[key]
	if !known {
		list = c.read()
		c.tables.rules[key] = list
	}
	return func(yield func(*rule) bool) {
		for i := range list {
			if !yield(&list[i]) {
				return
			}
		}
	}
}

// read reads the rules. Those that cannot be read may accept some packets.
func (c nftChain) read() []rule {
	list, err := c.tables.conn.GetRules(c.table, &nftables.Chain{Name: c.label, Table: c.table})
	if err != nil {
		return []rule{{more: true, verdict: Accept}}
	}
	out := make([]rule, 0, len(list)+1)
	for _, r := range list {
		out = append(out, c.parse(r))
	}
	if c.policy != nil && *c.policy == nftables.ChainPolicyDrop {
		out = append(out, rule{verdict: Drop})
	}
	return out
}

func (c nftChain) parse(r *nftables.Rule) rule {
	conditions, all := Conditions(c.family, r.Exprs)
	out := rule{conditions: conditions, more: !all, number: r.Handle}
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Verdict:
			out.verdict = nftVerdicts[e.Kind]
			if e.Chain != "" {
				out.to = nftChain{tables: c.tables, table: c.table, label: e.Chain, family: c.family}
			}
		case *expr.Lookup:
			if e.IsDestRegSet && e.DestRegister == unix.NFT_REG_VERDICT {
				out.verdict = Accept // for some packets: what a map holds is not read
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
			// What is loaded next may be an expression that the library leaves out.
			delete(registers, e.Register)
		case *expr.Match:
			if c, has, ok := portsOf(e.Info).destination(f); has || !ok {
				add(c, ok)
			}
		case *expr.Verdict, *expr.Counter, *expr.Log, *expr.Reject, *expr.Target, *expr.Immediate, *expr.Masq:
		default:
			all = false
		}
	}
	return out, all
}

// portsOf returns what an extension of xtables compares. Comments match every packet.
func portsOf(info xt.InfoAny) ports {
	every := [2]uint16{0, 0xffff}
	switch m := info.(type) {
	case *xt.Comment:
		return ports{src: every, dst: every}
	case *xt.Tcp:
		more := m.Option != 0 || m.FlagsMask != 0 || m.InvFlags&^xt.TcpInvDestPorts != 0
		return ports{m.SrcPorts, m.DstPorts, m.InvFlags == xt.TcpInvDestPorts, more}
	case *xt.Udp:
		return ports{m.SrcPorts, m.DstPorts, m.InvFlags == xt.UdpInvDestPorts, m.InvFlags&^xt.UdpInvDestPorts != 0}
	}
	return ports{more: true}
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
