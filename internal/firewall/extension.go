package firewall

import (
	"encoding/binary"
	"net/netip"

	"flannel/internal/ipfam"
)

// extension reads the conditions of a match of xtables, as legacy iptables and
// iptables-nft hold them.
func (r *rule) extension(f ipfam.Family, name string, revision uint8, info []byte) {
	switch name {
	case "tcp", "udp":
		r.ports(f, name, info)
	case "comment":
	case "mark":
		r.markMatch(info)
	case "conntrack":
		r.conntrack(revision, info)
	case "state":
		// struct xt_state_info
		if len(info) < 4 {
			r.more = true
			return
		}
		r.anyState(binary.NativeEndian.Uint32(info), false)
	case "multiport":
		r.multiport(f, info)
	default:
		r.more = true
	}
}

// ports reads struct xt_tcp or struct xt_udp.
func (r *rule) ports(f ipfam.Family, name string, info []byte) {
	// Behind the ports: option, mask and value of the flags, which only tcp has, and
	// what is inverted.
	const portsSize, othersSize, invertedSrcPort, invertedDstPort = 8, 3, 1, 2
	others := 0
	if name == "tcp" {
		others = othersSize
	}
	if len(info) <= portsSize+others {
		r.more = true
		return
	}
	not := info[portsSize+others]
	r.portRange(f, srcPort, info[:4], not&invertedSrcPort != 0)
	r.portRange(f, Port, info[4:8], not&invertedDstPort != 0)
	if not&^(invertedSrcPort|invertedDstPort) != 0 || !zero(info[portsSize:portsSize+others]) {
		r.more = true
	}
}

// portRange adds a condition on a port: the first and the last one, in the machine's
// byte order.
func (r *rule) portRange(f ipfam.Family, field Field, b []byte, not bool) {
	first, last := binary.NativeEndian.Uint16(b), binary.NativeEndian.Uint16(b[2:])
	if first == 0 && last == 0xffff && !not {
		return
	}
	r.conditions = append(r.conditions, portCondition(f, field, first, last, not))
}

func portCondition(f ipfam.Family, field Field, first, last uint16, not bool) Condition {
	value := func(port uint16) netip.Prefix {
		return field.values(f, binary.BigEndian.AppendUint16(nil, port), 16)
	}
	c := Condition{Field: field, Values: value(first), Not: not}
	if last != first {
		c.Last = lastOf(value(last))
	}
	return c
}

// markMatch reads struct xt_mark_mtinfo1.
func (r *rule) markMatch(info []byte) {
	const invertAt = 8
	if len(info) <= invertAt {
		r.more = true
		return
	}
	r.bits(mark, binary.NativeEndian.Uint32(info), binary.NativeEndian.Uint32(info[4:]), info[invertAt] != 0)
}

// bits adds a condition on a number under a mask.
func (r *rule) bits(f Field, value, mask uint32, not bool) {
	switch {
	case mask != 0:
		r.conditions = append(r.conditions, compareBits(f, value, mask, not))
	case (value != 0) != not: // matches nothing
		r.conditions = append(r.conditions, never)
	}
}

// never matches no packet.
var never = Condition{Field: mark, bits: 1, mask: 2}

// anyState adds the condition that the connection is in one of some states.
func (r *rule) anyState(states uint32, not bool) {
	// It is in one of them if not all their bits are zero.
	r.bits(state, 0, states, !not)
}

// conntrack reads struct xt_conntrack_mtinfo1 to 3, of which states are understood.
func (r *rule) conntrack(revision uint8, info []byte) {
	const (
		flagsAt, invertAt, stateAt = 146, 148, 150
		flagState, flagAlias       = 1 << 0, 1 << 13
		untracked                  = 1 << 8
	)
	if len(info) < stateAt+2 || revision < 1 || revision > 3 {
		r.more = true
		return
	}
	flags := binary.NativeEndian.Uint16(info[flagsAt:])
	not := binary.NativeEndian.Uint16(info[invertAt:])&flagState != 0
	states := uint32(binary.NativeEndian.Uint16(info[stateAt:]))
	if revision == 1 {
		states = uint32(info[stateAt])
	}
	if flags&^(flagState|flagAlias) != 0 {
		r.more = true
	}
	if flags&flagState == 0 {
		return
	}
	tracked := states & (stateInvalid | stateEstablished | stateRelated | stateNew)
	if states&untracked != 0 {
		tracked |= stateUntracked
	}
	// Of those that are left, translated addresses, a new connection has none.
	r.anyState(tracked, not)
}

// multiport reads struct xt_multiport_v1.
func (r *rule) multiport(f ipfam.Family, info []byte) {
	const most, portsAt, rangesAt, invertAt, destination = 15, 2, 32, 47, 1
	if len(info) <= invertAt || info[0] != destination || int(info[1]) > most {
		r.more = true
		return
	}
	port := func(i int) uint16 { return binary.NativeEndian.Uint16(info[portsAt+2*i:]) }
	var list []element
	for i := 0; i < int(info[1]); i++ {
		c := portCondition(f, Port, port(i), port(i), false)
		if info[rangesAt+i] != 0 && i+1 < int(info[1]) {
			i++
			c = portCondition(f, Port, port(i-1), port(i), false)
		}
		s := span{c.Values.Addr(), c.Last}
		if !c.Last.IsValid() {
			s.last = lastOf(c.Values)
		}
		list = append(list, element{span: s})
	}
	r.lookups = append(r.lookups, lookup{field: Port, in: &elements{list: list}, not: info[invertAt] != 0})
}

// target notes what a target of xtables does, if that is more than a verdict.
func (r *rule) target(name string) {
	switch name {
	case "REJECT":
		r.verdict, r.reject = Drop, true
	case "MARK", "CONNMARK":
		r.alters = append(r.alters, mark)
	case "CT", "NOTRACK":
		r.alters = append(r.alters, state)
	case "NFQUEUE", "QUEUE", "TPROXY":
		r.verdict, r.more = Accept, true // a program decides
	}
}
