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

// The hooks of the tables that filter.
const (
	Input   Hook = unix.NF_INET_LOCAL_IN
	Forward Hook = unix.NF_INET_FORWARD
	Output  Hook = unix.NF_INET_LOCAL_OUT
)

// Packet describes packets. What is not set may have any value.
type Packet struct {
	Family   ipfam.Family
	Hook     Hook
	Src, Dst netip.Prefix
	// In and Out name the interfaces.
	In, Out string
	// Protocol is that of the transport layer, Port the destination port.
	Protocol uint8
	Port     uint16
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
	fields
)

// Condition matches packets in which a field has, or has not, one of some values. A
// value that is not an address is written as one: its bytes come first.
type Condition struct {
	Field  Field
	Values netip.Prefix
	Not    bool
}

// nameSize is that of the name of an interface.
const nameSize = unix.IFNAMSIZ

// nfProto are the families as netfilter numbers them.
var nfProto = ipfam.Pair[byte]{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}

// values returns those whose first bits are these.
func (f Field) values(family ipfam.Family, value []byte, ones int) netip.Prefix {
	size := 4 // enough for a number
	switch f {
	case Src, Dst:
		size = family.Bits() / 8
	case In, Out:
		size = nameSize
	}
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
type known [fields]netip.Prefix

func (p Packet) known() known {
	out := known{Src: p.Src, Dst: p.Dst}
	set := func(f Field, value ...byte) { out[f] = f.values(p.Family, value, 8*len(value)) }
	set(Family, nfProto[p.Family])
	for f, name := range map[Field]string{In: p.In, Out: p.Out} {
		if name != "" {
			set(f, append([]byte(name), make([]byte, nameSize-len(name))...)...)
		}
	}
	if p.Protocol != 0 {
		set(Protocol, p.Protocol)
	}
	if p.Port != 0 {
		set(Port, binary.BigEndian.AppendUint16(nil, p.Port)...)
	}
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
	p, out := packet[c.Field], maybe
	switch {
	case !p.IsValid():
		return maybe
	case c.Values.Bits() <= p.Bits() && c.Values.Contains(p.Addr()):
		out = yes
	case !c.Values.Overlaps(p):
		out = no
	}
	if c.Not {
		return yes - out
	}
	return out
}

// ports are what the extensions tcp and udp of xtables compare.
type ports struct {
	src, dst [2]uint16 // the first and the last one
	notDst   bool
	// more is set if there are conditions on other things.
	more bool
}

// destination returns the condition on the destination port, if there is one. It
// reports false if there are others, or if it is not on a single port.
func (p ports) destination(family ipfam.Family) (c Condition, has, ok bool) {
	every := [2]uint16{0, 0xffff}
	has = p.notDst || p.dst != every
	c = Condition{Port, Port.values(family, binary.BigEndian.AppendUint16(nil, p.dst[0]), 16), p.notDst}
	return c, has, !p.more && p.src == every && (!has || p.dst[0] == p.dst[1])
}
