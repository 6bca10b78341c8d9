package packet

import (
	"bytes"
	"encoding/binary"
)

// MaxParts is how many packets one merged packet is made of at most.
const MaxParts = 128

const maxPacket = 65535

// Merger joins packets of one flow that follow each other into one, which the
// kernel takes apart again where it has to. Only neighbors are joined, so the
// order of packets never changes. The payloads stay where they are.
type Merger struct {
	// UDP is whether the kernel can take UDP packets apart.
	UDP bool

	// parts are the first packet with its headers, and the payloads of the
	// others.
	parts [MaxParts][]byte
	count int
	total int // bytes of all parts
	// first describes the first packet; ok is whether others may join it.
	first segment
	ok    bool
	// checked is whether the checksum of the first packet is right.
	checked bool
}

// segment is a packet that can be joined with others.
type segment struct {
	packet    Packet
	transport int
	headers   int
	tcp       bool
}

func (s segment) payload() []byte { return s.packet[s.headers:] }

// Add takes a packet. It reports false, and takes nothing, when the packet does
// not join those that are there: they must be written first.
func (m *Merger) Add(p Packet) bool {
	s, ok := m.segment(p)
	if m.count == 0 {
		m.parts[0], m.count, m.total = p, 1, len(p)
		m.first, m.ok, m.checked = s, ok, false
		return true
	}
	if !ok || !m.ok || !m.fits(s) {
		return false
	}
	if !m.checked {
		if m.ok = m.first.intact(); !m.ok {
			return false
		}
		m.checked = true
	}
	if !s.intact() {
		return false
	}
	m.parts[m.count] = s.payload()
	m.count++
	m.total += len(s.payload())
	if s.tcp && s.packet[s.transport+tcpFlags]&tcpPSH != 0 {
		m.first.packet[m.first.transport+tcpFlags] |= tcpPSH
	}
	m.ok = len(s.payload()) == len(m.first.payload()) && !m.pushed()
	return true
}

func (m *Merger) pushed() bool {
	return m.first.tcp && m.first.packet[m.first.transport+tcpFlags]&tcpPSH != 0
}

// Take returns the pieces of the merged packet, in order, and the header that
// goes before them. The merger is then empty; the pieces are valid until the
// next Add. Without packets it returns nil.
func (m *Merger) Take() (Vnet, [][]byte) {
	if m.count == 0 {
		return Vnet{}, nil
	}
	parts := m.parts[:m.count]
	m.count = 0
	if len(parts) == 1 {
		return Vnet{}, parts
	}
	return m.seal(), parts
}

// seal makes the headers of the first packet those of all.
func (m *Merger) seal() Vnet {
	s := m.first
	v := Vnet{
		flags: vnetNeedsCsum, gsoType: gsoUDP,
		hdrLen: uint16(s.headers), gsoSize: uint16(len(s.payload())),
		checksumStart: uint16(s.transport), checksumAt: udpSum,
	}
	t, protocol := s.packet[s.transport:], byte(protoUDP)
	if s.tcp {
		v.gsoType, v.checksumAt, protocol = gsoTCPv4, tcpSum, protoTCP
		if s.packet[0]>>4 == 6 {
			v.gsoType = gsoTCPv6
		}
	} else {
		binary.BigEndian.PutUint16(t[udpLen:], uint16(m.total-s.transport))
	}
	s.packet.setLength(m.total)
	// The kernel adds the rest to the sum of the pseudo header.
	pseudo := s.packet.pseudo(protocol).addNumber(uint16(m.total - s.transport))
	binary.NativeEndian.PutUint16(t[v.checksumAt:], pseudo.fold())
	return v
}

// segment looks whether a packet can be joined with others at all.
func (m *Merger) segment(p Packet) (segment, bool) {
	s := segment{packet: p, transport: p.headerLen()}
	if p[0]>>4 == 4 && (s.transport != headerV4 || p.isFragment()) {
		return s, false
	}
	switch p.protocol() {
	case protoTCP:
		s.tcp = true
		if len(p) < s.transport+headerTCP || p[s.transport+tcpFlags]&^tcpPSH != tcpACK {
			return s, false
		}
		s.headers = s.transport + int(p[s.transport+tcpOff]>>4)*4
		return s, s.headers >= s.transport+headerTCP && s.headers < len(p)
	case protoUDP:
		s.headers = s.transport + headerUDP
		if !m.UDP || s.headers >= len(p) {
			return s, false
		}
		t := p[s.transport:]
		return s, int(binary.BigEndian.Uint16(t[udpLen:])) == len(t) && t[udpSum]|t[udpSum+1] != 0
	}
	return s, false
}

// fits reports whether s continues what is there.
func (m *Merger) fits(s segment) bool {
	f := m.first
	size := len(f.payload())
	if s.tcp != f.tcp || s.transport != f.transport || s.headers != f.headers ||
		len(s.payload()) > size || m.pushed() ||
		m.count == MaxParts || m.total+len(s.payload()) > maxPacket {
		return false
	}
	if !m.sameHeader(f.packet, s.packet) {
		return false
	}
	a, b := f.packet[f.transport:f.headers], s.packet[s.transport:s.headers]
	if !f.tcp {
		return bytes.Equal(a[:udpLen], b[:udpLen])
	}
	// Ports, acknowledgement, offset; window; urgent pointer and options.
	return binary.BigEndian.Uint32(b[tcpSeq:]) == binary.BigEndian.Uint32(a[tcpSeq:])+uint32(m.count*size) &&
		bytes.Equal(a[:tcpSeq], b[:tcpSeq]) && bytes.Equal(a[8:tcpFlags], b[8:tcpFlags]) &&
		bytes.Equal(a[14:tcpSum], b[14:tcpSum]) && bytes.Equal(a[18:], b[18:])
}

// sameHeader compares IP headers but for length, number and checksum.
func (m *Merger) sameHeader(a, b Packet) bool {
	if a[0]>>4 == 6 {
		return bytes.Equal(a[:4], b[:4]) && bytes.Equal(a[6:headerV6], b[6:headerV6])
	}
	follows := binary.BigEndian.Uint16(b[4:]) == binary.BigEndian.Uint16(a[4:])+uint16(m.count)
	return a[0] == b[0] && a[1] == b[1] && bytes.Equal(a[6:10], b[6:10]) && bytes.Equal(a[12:headerV4], b[12:headerV4]) &&
		(follows || a.DontFragment())
}

// intact verifies the checksums, so that joining never repairs what is broken.
func (s segment) intact() bool {
	if s.packet[0]>>4 == 4 && !sum(0).add(s.packet[:s.transport]).valid() {
		return false
	}
	t := s.packet[s.transport:]
	return s.packet.pseudo(s.packet.protocol()).addNumber(uint16(len(t))).add(t).valid()
}
