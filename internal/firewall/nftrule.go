package firewall

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"
)

// parser reads the rules of a chain.
type parser struct {
	chain nftChain
	// registers are what the rule has loaded so far.
	registers [registers]operand
}

// registers is how many there are, of four bytes each.
const registers = 24

// operand is what a register holds: a field, perhaps under a mask.
type operand struct {
	valid bool
	field Field
	mask  []byte
}

// register returns the place of a register. The first four numbers stand for those of
// 16 bytes.
func register(n uint32) int {
	const wide, narrow = 4, 8
	switch {
	case n >= 1 && n <= wide:
		return int(narrow + wide*(n-1))
	case n >= narrow && n < registers:
		return int(n)
	}
	return 0
}

// attributes are those of one message or expression, by their types; none of those
// that are read here has a higher one, or stands twice.
type attributes [16][]byte

func attributesOf(b []byte) (a attributes) {
	for typ, v := range rtnl.Attrs(b) {
		if int(typ) < len(a) {
			a[typ] = v
		}
	}
	return a
}

// number returns that of an attribute, 0 if it is missing.
func (a *attributes) number(typ uint16) uint32 { return be32(a[typ]) }

// rule reads a rule.
func (p *parser) rule(b []byte) rule {
	p.registers = [registers]operand{}
	r := rule{}
	a := attributesOf(b)
	if handle := a[unix.NFTA_RULE_HANDLE]; len(handle) >= 8 {
		r.number = binary.BigEndian.Uint64(handle)
	}
	for _, e := range rtnl.Attrs(a[unix.NFTA_RULE_EXPRESSIONS]) {
		p.expression(e, &r)
	}
	return r
}

// Conditions returns the conditions of a rule that are understood. It reports
// whether these are all.
func Conditions(f ipfam.Family, list []expr.Any) (out []Condition, all bool) {
	p, r := parser{chain: nftChain{family: f}}, rule{}
	for _, e := range list {
		b, err := expr.Marshal(families[f], e)
		if err != nil {
			r.more = true
			continue
		}
		p.expression(b, &r)
	}
	return r.conditions, !r.more && len(r.lookups) == 0 && r.choice == nil && len(r.alters) == 0
}

// expression adds what one expression means for a rule.
func (p *parser) expression(b []byte, r *rule) {
	a := attributesOf(b)
	data := a[unix.NFTA_EXPR_DATA]
	switch string(text(a[unix.NFTA_EXPR_NAME])) {
	case "payload":
		p.payload(data)
	case "meta":
		p.meta(data, r)
	case "ct":
		p.ct(data)
	case "bitwise":
		p.bitwise(data)
	case "cmp":
		p.compare(data, r)
	case "range":
		p.between(data, r)
	case "lookup":
		p.lookup(data, r)
	case "immediate":
		p.immediate(data, r)
	case "match":
		name, revision, info := extensionOf(data)
		r.extension(p.chain.family, name, revision, info)
	case "target":
		name, _, _ := extensionOf(data)
		r.target(name)
	case "reject":
		r.verdict, r.reject = Drop, true
	case "notrack":
		r.alters = append(r.alters, state)
	case "queue", "tproxy":
		r.verdict, r.more = Accept, true // a program decides
	case "fwd":
		r.verdict, r.more = Drop, true // to another device
	case "counter", "log", "last", "masq", "nat", "redir":
	default:
		// What is loaded next to it is not known either.
		r.more = true
		p.registers = [registers]operand{}
	}
}

// load notes what a register holds.
func (p *parser) load(n uint32, field Field, ok bool) {
	p.registers[register(n)] = operand{valid: ok, field: field}
}

// payload reads from the packet's headers. A prefix of whole bytes may be loaded
// without the rest.
func (p *parser) payload(b []byte) {
	a := attributesOf(b)
	dest, offset, size := a.number(unix.NFTA_PAYLOAD_DREG), a.number(unix.NFTA_PAYLOAD_OFFSET), a.number(unix.NFTA_PAYLOAD_LEN)
	if dest == 0 {
		return // it writes to the packet
	}
	field, ok := Field(0), false
	switch a.number(unix.NFTA_PAYLOAD_BASE) {
	case unix.NFT_PAYLOAD_LL_HEADER:
		field, ok = etherType, offset == 12 && size == 2
	case unix.NFT_PAYLOAD_NETWORK_HEADER:
		field, ok = headers[p.chain.family][offset]
		ok = ok && int(size) <= field.size(p.chain.family)
	case unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		field, ok = Port, offset == 2 && size == 2
		if offset == 0 && size == 2 {
			field, ok = srcPort, true
		}
	}
	p.load(dest, field, ok)
}

// headers are the offsets of the fields in the header of a network packet.
var headers = ipfam.Pair[map[uint32]Field]{
	{12: Src, 16: Dst, 9: Protocol},
	{8: Src, 24: Dst, 6: Protocol},
}

var metaFields = map[uint32]Field{
	unix.NFT_META_NFPROTO: Family, unix.NFT_META_L4PROTO: Protocol, unix.NFT_META_PROTOCOL: etherType,
	unix.NFT_META_IIFNAME: In, unix.NFT_META_OIFNAME: Out, unix.NFT_META_IIF: inIndex, unix.NFT_META_OIF: outIndex,
	unix.NFT_META_MARK: mark,
}

func (p *parser) meta(b []byte, r *rule) {
	a := attributesOf(b)
	dest, key := a.number(unix.NFTA_META_DREG), a.number(unix.NFTA_META_KEY)
	if dest == 0 { // it changes the packet
		if key == unix.NFT_META_MARK {
			r.alters = append(r.alters, mark)
		}
		return
	}
	field, ok := metaFields[key]
	p.load(dest, field, ok)
}

func (p *parser) ct(b []byte) {
	a := attributesOf(b)
	directed := a[unix.NFTA_CT_DIRECTION] != nil
	fields := map[uint32]Field{unix.NFT_CT_STATE: state, unix.NFT_CT_STATUS: status}
	field, ok := fields[a.number(unix.NFTA_CT_KEY)]
	if dest := a.number(unix.NFTA_CT_DREG); dest != 0 {
		p.load(dest, field, ok && !directed)
	}
}

func (p *parser) bitwise(b []byte) {
	const op = 6 // NFTA_BITWISE_OP: the first is mask and xor
	a := attributesOf(b)
	mask, xor := dataValue(a[unix.NFTA_BITWISE_MASK]), dataValue(a[unix.NFTA_BITWISE_XOR])
	o := p.registers[register(a.number(unix.NFTA_BITWISE_SREG))]
	o.valid = o.valid && a.number(op) == 0 && o.mask == nil && mask != nil && zero(xor)
	o.mask = mask
	p.registers[register(a.number(unix.NFTA_BITWISE_DREG))] = o
}

// take returns what a register holds. What is loaded next may be something that is
// not understood.
func (p *parser) take(n uint32) operand {
	at := register(n)
	o := p.registers[at]
	p.registers[at] = operand{}
	return o
}

func (p *parser) compare(b []byte, r *rule) {
	a := attributesOf(b)
	source, op, data := a.number(unix.NFTA_CMP_SREG), a.number(unix.NFTA_CMP_OP), dataValue(a[unix.NFTA_CMP_DATA])
	f := p.chain.family
	o := p.registers[register(source)]
	if op == unix.NFT_CMP_EQ || op == unix.NFT_CMP_NEQ {
		p.take(source)
	}
	if !o.valid || len(data) > max(o.field.size(f), 4) {
		r.more = true
		return
	}
	c := Condition{Field: o.field, Not: op == unix.NFT_CMP_NEQ}
	switch ordered := op != unix.NFT_CMP_EQ && op != unix.NFT_CMP_NEQ; {
	case ordered && (o.mask != nil || o.field >= mark || len(data) != o.field.size(f)):
		r.more = true
		return
	case ordered:
		c.Values, c.Last = half(f, o.field, op, data)
		r.addRange(c)
		return
	case o.field >= mark:
		p.number(o, data, c.Not, r)
		return
	case o.mask != nil:
		ok := false
		c.Values, ok = o.field.masked(f, data, o.mask)
		r.add(c, ok)
		return
	}
	c.Values = o.field.values(f, data, 8*len(data))
	r.add(c, c.Values.IsValid())
}

// number adds a condition on bits.
func (p *parser) number(o operand, data []byte, not bool, r *rule) {
	mask := ^uint32(0)
	if len(o.mask) == 4 {
		mask = binary.NativeEndian.Uint32(o.mask)
	}
	if len(data) != 4 || o.mask != nil && len(o.mask) != 4 {
		r.more = true
		return
	}
	r.bits(o.field, binary.NativeEndian.Uint32(data), mask, not)
}

// half returns the values on one side of another one; none if it cannot be compared.
func half(f ipfam.Family, field Field, op uint32, data []byte) (netip.Prefix, netip.Addr) {
	value := field.values(f, data, 8*len(data))
	from := func(a netip.Addr) netip.Prefix {
		if !a.IsValid() {
			return netip.Prefix{}
		}
		return netip.PrefixFrom(a, a.BitLen())
	}
	lowest := field.values(f, nil, 0).Addr()
	switch op {
	case unix.NFT_CMP_GTE:
		return from(value.Addr()), highest(lowest)
	case unix.NFT_CMP_GT:
		return from(lastOf(value).Next()), highest(lowest)
	case unix.NFT_CMP_LTE:
		return from(lowest), lastOf(value)
	case unix.NFT_CMP_LT:
		if last := value.Addr().Prev(); last.IsValid() {
			return from(lowest), last
		}
	}
	return netip.Prefix{}, netip.Addr{}
}

// addRange adds a range; two in a row are the ends of one.
func (r *rule) addRange(c Condition) {
	if n := len(r.conditions); n > 0 && c.Values.IsValid() {
		if before := &r.conditions[n-1]; before.Field == c.Field && before.Last.IsValid() && !before.Not {
			if before.Values.Addr().Less(c.Values.Addr()) {
				before.Values = c.Values
			}
			if c.Last.Less(before.Last) {
				before.Last = c.Last
			}
			return
		}
	}
	r.add(c, c.Values.IsValid())
}

// highest returns the last address of a family.
func highest(a netip.Addr) netip.Addr {
	return lastOf(netip.PrefixFrom(a, 0))
}

func (p *parser) between(b []byte, r *rule) {
	a := attributesOf(b)
	from, to := dataValue(a[unix.NFTA_RANGE_FROM_DATA]), dataValue(a[unix.NFTA_RANGE_TO_DATA])
	f, o := p.chain.family, p.take(a.number(unix.NFTA_RANGE_SREG))
	size := o.field.size(f)
	if !o.valid || o.mask != nil || o.field >= mark || len(from) != size || len(to) != size {
		r.more = true
		return
	}
	r.add(Condition{
		Field: o.field, Values: o.field.values(f, from, 8*size), Last: lastOf(o.field.values(f, to, 8*size)),
		Not: a.number(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_NEQ,
	}, true)
}

func (p *parser) lookup(b []byte, r *rule) {
	const inverted = 1
	a := attributesOf(b)
	set, dest, mapped := string(text(a[unix.NFTA_LOOKUP_SET])), a.number(unix.NFTA_LOOKUP_DREG), a[unix.NFTA_LOOKUP_DREG] != nil
	o := p.take(a.number(unix.NFTA_LOOKUP_SREG))
	l := &lookup{field: o.field, not: a.number(unix.NFTA_LOOKUP_FLAGS)&inverted != 0}
	if o.valid && o.mask == nil && p.chain.tables != nil {
		l.in = p.chain.elements(set, o.field)
	} else {
		l.in = &elements{bad: true}
	}
	switch {
	case mapped && dest == unix.NFT_REG_VERDICT:
		r.choice = l
	case mapped:
		p.load(dest, 0, false)
		r.more = true
	default:
		r.lookups = append(r.lookups, *l)
	}
}

func (p *parser) immediate(b []byte, r *rule) {
	a := attributesOf(b)
	if dest := a.number(unix.NFTA_IMMEDIATE_DREG); dest != unix.NFT_REG_VERDICT {
		p.load(dest, 0, false)
		return
	}
	o := p.chain.outcome(a[unix.NFTA_IMMEDIATE_DATA])
	r.verdict, r.to = o.verdict, o.to
}

// outcome reads a verdict.
func (c nftChain) outcome(data []byte) outcome {
	var o outcome
	a := attributesOf(data)
	a = attributesOf(a[unix.NFTA_DATA_VERDICT])
	if code := a[unix.NFTA_VERDICT_CODE]; code != nil {
		o.verdict = nftVerdicts[int32(be32(code))]
	}
	if to := a[unix.NFTA_VERDICT_CHAIN]; to != nil {
		o.to = nftChain{tables: c.tables, table: c.table, label: string(text(to)), family: c.family}
	}
	return o
}

var nftVerdicts = map[int32]Verdict{
	unix.NFT_RETURN: toCaller, unix.NFT_JUMP: jump, unix.NFT_GOTO: jumpForGood, nfDrop: Drop, nfAccept: Accept,
}

// The verdicts that are not nf_tables' alone (linux/netfilter.h).
const (
	nfDrop   = 0
	nfAccept = 1
)

// dataValue returns the value in struct nft_data.
func dataValue(b []byte) []byte {
	a := attributesOf(b)
	return a[unix.NFTA_DATA_VALUE]
}

// extensionOf reads a match or a target of xtables, which have the same attributes.
func extensionOf(b []byte) (name string, revision uint8, info []byte) {
	a := attributesOf(b)
	return string(text(a[unix.NFTA_MATCH_NAME])), uint8(a.number(unix.NFTA_MATCH_REV)), a[unix.NFTA_MATCH_INFO]
}
