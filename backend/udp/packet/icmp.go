package packet

import (
	"encoding/binary"
	"net/netip"

	"flannel/internal/ipfam"
)

// Problem is what an ICMP error reports.
type Problem uint8

// The problems that a router has with packets.
const (
	// NoRoute: there is no lease for the destination.
	NoRoute Problem = iota
	// TimeExceeded: the time to live has ended.
	TimeExceeded
	// TooBig: the packet must be smaller.
	TooBig
)

// icmpKind is type and code (RFC 792, RFC 4443).
type icmpKind [2]byte

var icmpKinds = ipfam.Pair[[3]icmpKind]{
	{{3, 0}, {11, 0}, {3, 4}},
	{{1, 0}, {3, 0}, {2, 0}},
}

// An error quotes so much of the packet that it has at most this length
// (RFC 1812, section 4.3.2.3; RFC 4443, section 3).
var maxError = ipfam.Pair[int]{576, 1280}

const headerICMP = 8

// Report returns the ICMP error that reports a problem to the sender of p,
// from an address of this host, or nil if none may be sent. mtu is what
// TooBig allows.
func Report(problem Problem, p Packet, from netip.Addr, mtu int) Packet {
	f := p.Family()
	if !from.IsValid() || ipfam.Of(from) != f || !p.mayReport(problem) {
		return nil
	}
	header := ipfam.Pair[int]{headerV4, headerV6}[f]
	quote := p[:min(len(p), maxError[f]-header-headerICMP)]
	r := make(Packet, header+headerICMP+len(quote))
	icmp := r[header:]
	kind := icmpKinds[f][problem]
	icmp[0], icmp[1] = kind[0], kind[1]
	if problem == TooBig {
		binary.BigEndian.PutUint32(icmp[4:], uint32(mtu))
	}
	copy(icmp[headerICMP:], quote)
	src, dst := from.As16(), p.Src().As16()
	if f == ipfam.V4 {
		r[0], r[8], r[9] = 0x45, 64, protoICMP
		copy(r[12:], src[12:])
		copy(r[16:], dst[12:])
		r.setLength(len(r))
		sum(0).add(icmp).put(icmp[2:])
		return r
	}
	r[0], r[6], r[7] = 0x60, protoICMPv6, 64
	copy(r[8:], src[:])
	copy(r[24:], dst[:])
	r.setLength(len(r))
	r.pseudo(protoICMPv6).addNumber(uint16(len(icmp))).add(icmp).put(icmp[2:])
	return r
}

// mayReport applies the rules against storms of errors (RFC 1122, section
// 3.2.2; RFC 4443, section 2.4). An ICMP packet without a route is
// dropped silently, as by flannel.
func (p Packet) mayReport(problem Problem) bool {
	src, dst := p.Src(), p.Dst()
	if !src.IsGlobalUnicast() || dst.IsMulticast() && problem != TooBig || p.isLaterFragment() {
		return false
	}
	protocol := p.protocol()
	if protocol != protoICMP && protocol != protoICMPv6 {
		return true
	}
	return problem != NoRoute && !p.isICMPError()
}

func (p Packet) isICMPError() bool {
	header := p.headerLen()
	if len(p) <= header {
		return true
	}
	kind := p[header]
	if p.Family() == ipfam.V6 {
		return kind < 128
	}
	switch kind {
	case 0, 8, 13, 14: // Echo and timestamp, questions and answers.
		return false
	}
	return true
}

// Fragments takes an IPv4 packet apart so that no part is longer than mtu. It
// returns nil when that is not allowed or not possible.
func Fragments(p Packet, mtu int) []Packet {
	if p.DontFragment() {
		return nil
	}
	header := p.headerLen()
	size := (mtu - header) &^ 7
	if size < 8 {
		return nil
	}
	field := binary.BigEndian.Uint16(p[6:])
	var out []Packet
	for at := header; at < len(p); at += size {
		end := min(at+size, len(p))
		part := append(append(make(Packet, 0, header+end-at), p[:header]...), p[at:end]...)
		if at > header {
			onlyCopied(part[headerV4:header])
		}
		offset := field&0x1fff + uint16((at-header)/8)
		more := field & 0x2000
		if end < len(p) {
			more = 0x2000
		}
		binary.BigEndian.PutUint16(part[6:], field&0xc000|more|offset)
		part.setLength(len(part))
		out = append(out, part)
	}
	return out
}

// onlyCopied replaces the options that belong into the first fragment alone
// with ones that mean nothing (RFC 791, section 3.1).
func onlyCopied(options []byte) {
	for i := 0; i < len(options); {
		kind, length := options[i], 1
		if kind > 1 {
			if i+1 >= len(options) || options[i+1] < 2 {
				return
			}
			length = min(int(options[i+1]), len(options)-i)
		}
		if kind == 0 {
			return
		}
		if kind&0x80 == 0 {
			for j := range length {
				options[i+j] = 1
			}
		}
		i += length
	}
}
