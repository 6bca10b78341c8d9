package firewall

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
)

// Hook is a point at which the kernel applies rules to packets.
type Hook uint32

// The hooks. Those of netfilter have the kernel's numbers.
const (
	Prerouting  Hook = unix.NF_INET_PRE_ROUTING
	Input       Hook = unix.NF_INET_LOCAL_IN
	Forward     Hook = unix.NF_INET_FORWARD
	Output      Hook = unix.NF_INET_LOCAL_OUT
	Postrouting Hook = unix.NF_INET_POST_ROUTING
	// Ingress and Egress are those of a device.
	Ingress Hook = unix.NF_INET_NUMHOOKS
	Egress  Hook = unix.NF_INET_NUMHOOKS + 1
)

// The hooks that a packet meets, in the kernel's order.
var (
	// Through is the path of a packet that this host forwards.
	Through = []Hook{Ingress, Prerouting, Forward, Postrouting, Egress}
	// Inward and Outward are those of a packet for and of this host itself.
	Inward  = []Hook{Ingress, Prerouting, Input}
	Outward = []Hook{Output, Postrouting, Egress}
)

// Packet describes packets, each the first of its connection. What is not set may have
// any value.
type Packet struct {
	Family   ipfam.Family
	Hooks    []Hook
	Src, Dst netip.Prefix
	In, Out  Interface
	// Protocol is that of the transport layer, Port the destination port.
	Protocol uint8
	Port     uint16
}

// Interface is a device; without an index it is known by its name alone.
type Interface struct {
	Name  string
	Index int
}

// Field is a property of packets that rules compare.
type Field uint8

// The fields.
const (
	Family Field = iota
	Src
	Dst
	In
	Out
	Protocol
	Port
	srcPort
	inIndex
	outIndex
	etherType
	// mark, state and status are numbers of which rules compare single bits.
	mark
	state
	status
	fields
)

// Condition matches packets in which a field has, or has not, one of some values. A
// value that is not an address is written as one: its bytes come first.
type Condition struct {
	Field  Field
	Values netip.Prefix
	Not    bool
	// Last is set for the range that begins with the address of Values.
	Last netip.Addr
	// bits is compared with the bits of a number that mask has.
	bits, mask uint32
}

// nameSize is that of the name of an interface.
const nameSize = unix.IFNAMSIZ

// nfProto are the families as netfilter numbers them, etherTypes as Ethernet does.
var (
	nfProto    = ipfam.Pair[byte]{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}
	etherTypes = ipfam.Pair[uint16]{unix.ETH_P_IP, unix.ETH_P_IPV6}
)

// size is how many bytes a value has in a register, zero for one that may have others.
func (f Field) size(family ipfam.Family) int {
	switch f {
	case Src, Dst:
		return family.Bits() / 8
	case In, Out:
		return nameSize
	case Port, srcPort, etherType:
		return 2
	case Protocol, Family:
		return 1
	}
	return 4
}

// values returns those whose first bits are these.
func (f Field) values(family ipfam.Family, value []byte, ones int) netip.Prefix {
	size := max(f.size(family), 4) // enough for a number
	var padded [nameSize]byte
	copy(padded[:size], value)
	addr, _ := netip.AddrFromSlice(padded[:size])
	return netip.PrefixFrom(addr, ones).Masked()
}

// masked returns the values that equal one under a mask. It reports false if the
// mask has gaps.
func (f Field) masked(family ipfam.Family, value, mask []byte) (netip.Prefix, bool) {
	n := 0
	for n < len(mask) && mask[n] == 0xff {
		n++
	}
	ones := 8 * n
	if n < len(mask) {
		last := bits.LeadingZeros8(^mask[n])
		if mask[n]<<last != 0 || !zero(mask[n+1:]) {
			return netip.Prefix{}, false
		}
		ones += last
	}
	return f.values(family, value, ones), true
}

// known are the values of a packet's fields; one that is not known is the zero
// prefix.
type known struct {
	fields  [fields]netip.Prefix
	numbers [fields]number
}

// number is one of which some bits are known.
type number struct{ value, known uint32 }

// Bits of the state and of the status of a connection (linux/netfilter/
// nf_conntrack_common.h).
const (
	stateInvalid     = 1 << 0
	stateEstablished = 1 << 1
	stateRelated     = 1 << 2
	stateNew         = 1 << 3
	stateUntracked   = 1 << 6
	// freshStatus are the bits of status that a new connection does not have:
	// expected, answered, assured, confirmed, translated.
	freshStatus = 0x3f
)

// at returns what is known of a packet at a hook.
func (p Packet) at(h Hook) known {
	out := known{}
	out.fields[Src], out.fields[Dst] = p.Src, p.Dst
	set := func(f Field, value ...byte) { out.fields[f] = f.values(p.Family, value, 8*len(value)) }
	set(Family, nfProto[p.Family])
	set(etherType, binary.BigEndian.AppendUint16(nil, etherTypes[p.Family])...)
	device := func(name, index Field, d Interface, there bool) {
		if !there {
			d = Interface{}
		}
		if d.Name != "" || !there {
			set(name, append([]byte(d.Name), make([]byte, nameSize-len(d.Name))...)...)
		}
		if d.Index != 0 || !there {
			set(index, binary.NativeEndian.AppendUint32(nil, uint32(d.Index))...)
		}
	}
	own := len(p.Hooks) > 0 && p.Hooks[0] == Output
	device(In, inIndex, p.In, h != Output && h != Egress && !(h == Postrouting && own))
	device(Out, outIndex, p.Out, h != Ingress && h != Prerouting && h != Input)
	if p.Protocol != 0 {
		set(Protocol, p.Protocol)
	}
	if p.Port != 0 {
		set(Port, binary.BigEndian.AppendUint16(nil, p.Port)...)
	}
	out.numbers[status] = number{0, freshStatus}
	return out
}

// answer is whether packets meet a condition.
type answer uint8

const (
	no answer = iota
	maybe
	yes
)

// holds reports whether packets with these fields meet the condition.
func (c *Condition) holds(packet *known) answer {
	out := c.includes(packet)
	if c.Not {
		return yes - out
	}
	return out
}

func (c *Condition) includes(packet *known) answer {
	if c.mask != 0 {
		n := packet.numbers[c.Field]
		switch {
		case (n.value^c.bits)&c.mask&n.known != 0 || c.bits&^c.mask != 0:
			return no
		case c.mask&^n.known == 0:
			return yes
		}
		return maybe
	}
	p := packet.fields[c.Field]
	if !p.IsValid() {
		return maybe
	}
	if c.Last.IsValid() {
		return span{c.Values.Addr(), c.Last}.includes(p)
	}
	switch {
	case c.Values.Bits() <= p.Bits() && c.Values.Contains(p.Addr()):
		return yes
	case !c.Values.Overlaps(p):
		return no
	}
	return maybe
}

// span is a range of values.
type span struct{ first, last netip.Addr }

// includes reports whether all values of a prefix lie in the span.
func (s span) includes(p netip.Prefix) answer {
	first, last := p.Masked().Addr(), lastOf(p)
	switch {
	case first.BitLen() != s.first.BitLen() || last.Less(s.first) || s.last.Less(first):
		return no
	case !first.Less(s.first) && !s.last.Less(last):
		return yes
	}
	return maybe
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// compareBits compares a number under a mask.
func compareBits(f Field, value, mask uint32, not bool) Condition {
	return Condition{Field: f, bits: value, mask: mask, Not: not}
}
