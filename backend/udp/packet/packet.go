// Package packet looks at and changes IP packets: time to live, congestion
// marks, checksums, segments, and the ICMP errors about them. It does no I/O
// and allocates nothing per packet, except for ICMP errors and fragments.
package packet

import (
	"encoding/binary"
	"net/netip"

	"flannel/internal/ipfam"
)

// Packet is an IP packet whose header Parse has checked.
type Packet []byte

// Lengths of headers.
const (
	headerV4  = 20
	headerV6  = 40
	headerTCP = 20
	headerUDP = 8
)

// Protocols, as in the IP header.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// Parse checks the IP header and cuts off what follows the packet.
func Parse(b []byte) (Packet, bool) {
	switch {
	case len(b) >= headerV4 && b[0]>>4 == 4:
		header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
		if header < headerV4 || total < header || total > len(b) {
			return nil, false
		}
		return b[:total:total], true
	case len(b) >= headerV6 && b[0]>>4 == 6:
		total := headerV6 + int(binary.BigEndian.Uint16(b[4:]))
		if total > len(b) {
			return nil, false
		}
		return b[:total:total], true
	}
	return nil, false
}

// Family returns the IP version.
func (p Packet) Family() ipfam.Family {
	if p[0]>>4 == 4 {
		return ipfam.V4
	}
	return ipfam.V6
}

// Src returns the source address.
func (p Packet) Src() netip.Addr {
	if p.Family() == ipfam.V4 {
		return netip.AddrFrom4([4]byte(p[12:]))
	}
	return netip.AddrFrom16([16]byte(p[8:]))
}

// Dst returns the destination address.
func (p Packet) Dst() netip.Addr {
	if p.Family() == ipfam.V4 {
		return netip.AddrFrom4([4]byte(p[16:]))
	}
	return netip.AddrFrom16([16]byte(p[24:]))
}

func (p Packet) headerLen() int {
	if p.Family() == ipfam.V4 {
		return int(p[0]&15) * 4
	}
	return headerV6
}

// protocol is what follows the IP header.
func (p Packet) protocol() byte {
	if p.Family() == ipfam.V4 {
		return p[9]
	}
	return p[6]
}

// isFragment reports whether an IPv4 packet is a part of another one.
func (p Packet) isFragment() bool {
	return p.Family() == ipfam.V4 && binary.BigEndian.Uint16(p[6:])&0x3fff != 0
}

// isLaterFragment reports whether an IPv4 packet lacks the transport header.
func (p Packet) isLaterFragment() bool {
	return p.Family() == ipfam.V4 && binary.BigEndian.Uint16(p[6:])&0x1fff != 0
}

// DontFragment reports whether a router must not take the packet apart; for
// IPv6 that is always so.
func (p Packet) DontFragment() bool {
	return p.Family() == ipfam.V6 || p[6]&0x40 != 0
}

// Hop takes one from the time to live. It reports false, and changes nothing,
// when the packet ends here.
func (p Packet) Hop() bool {
	if p.Family() == ipfam.V6 {
		if p[7] <= 1 {
			return false
		}
		p[7]--
		return true
	}
	if p[8] <= 1 {
		return false
	}
	before := binary.BigEndian.Uint16(p[8:])
	p[8]--
	replace16(p[10:], before, binary.BigEndian.Uint16(p[8:]))
	return true
}

// TOS returns the DSCP in the upper six bits and ECN in the lower two.
func (p Packet) TOS() byte {
	if p.Family() == ipfam.V4 {
		return p[1]
	}
	return p[0]<<4 | p[1]>>4
}

func (p Packet) setTOS(tos byte) {
	if p.Family() == ipfam.V6 {
		p[0] = p[0]&0xf0 | tos>>4
		p[1] = p[1]&0x0f | tos<<4
		return
	}
	before := binary.BigEndian.Uint16(p)
	p[1] = tos
	replace16(p[10:], before, binary.BigEndian.Uint16(p))
}

// The values of the ECN field (RFC 3168, section 5).
const (
	ecnMask = 3
	notECT  = 0
	ect1    = 1
	ect0    = 2
	ce      = 3
)

// Outer returns the TOS of the outer header: the DSCP is that of the packet.
// ECN is copied (RFC 6040, normal mode), or off towards somebody who would not
// carry a mark over to the packet (compatibility mode).
func (p Packet) Outer(ecn bool) byte {
	if ecn {
		return p.TOS()
	}
	return p.TOS() &^ ecnMask
}

// Arrive carries a congestion mark of the outer header over to the packet
// (RFC 6040, section 4.2). It reports false when the packet must be dropped
// because its sender does not understand the mark.
func (p Packet) Arrive(outer byte) bool {
	tos := p.TOS()
	switch inner := tos & ecnMask; outer & ecnMask {
	case ce:
		if inner == notECT {
			return false
		}
		if inner != ce {
			p.setTOS(tos | ce)
		}
	case ect1:
		if inner == ect0 {
			p.setTOS(tos&^ecnMask | ect1)
		}
	}
	return true
}

// pseudo sums the pseudo header of a transport checksum without the length.
func (p Packet) pseudo(protocol byte) sum {
	if p.Family() == ipfam.V4 {
		return sum(0).add(p[12:20]).addNumber(uint16(protocol))
	}
	return sum(0).add(p[8:40]).addNumber(uint16(protocol))
}

// setLength writes the length of the whole packet, and for IPv4 the checksum.
func (p Packet) setLength(total int) {
	if p.Family() == ipfam.V6 {
		binary.BigEndian.PutUint16(p[4:], uint16(total-headerV6))
		return
	}
	binary.BigEndian.PutUint16(p[2:], uint16(total))
	p.sealV4()
}

func (p Packet) sealV4() {
	p[10], p[11] = 0, 0
	sum(0).add(p[:p.headerLen()]).put(p[10:])
}
