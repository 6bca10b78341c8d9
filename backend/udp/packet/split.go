package packet

import (
	"encoding/binary"
	"errors"
)

// MaxHeader is the most that the headers of a segment can take.
const MaxHeader = 60 + 60 + 60

// Flags of TCP, and where they are in its header.
const (
	tcpSeq   = 4
	tcpOff   = 12
	tcpFlags = 13
	tcpSum   = 16
	udpLen   = 4
	udpSum   = 6

	tcpFIN = 0x01
	tcpPSH = 0x08
	tcpACK = 0x10
	tcpCWR = 0x80
)

var errSegments = errors.New("segmentation header does not fit the packet")

// Splitter takes a packet of many segments apart. The segments' payloads stay
// where they are; only headers are written.
type Splitter struct {
	packet    Packet
	headers   int // up to here reach the headers
	transport int // from here on
	size      int // payload of a segment
	next      int // where the next payload starts
	count     int
	tcp       bool
	base      sum
	seq       uint32
	id        uint16
}

// Start begins with a packet that has segments according to v.
func (s *Splitter) Start(p Packet, v Vnet) error {
	*s = Splitter{packet: p, transport: int(v.checksumStart), size: int(v.gsoSize)}
	protocol := byte(protoTCP)
	switch v.gsoType &^ gsoECN {
	case gsoTCPv4, gsoTCPv6:
		s.tcp = true
		if s.transport+headerTCP > len(p) {
			return errSegments
		}
		s.headers = s.transport + int(p[s.transport+tcpOff]>>4)*4
		if s.headers < s.transport+headerTCP || s.headers > len(p) {
			return errSegments
		}
		s.seq = binary.BigEndian.Uint32(p[s.transport+tcpSeq:])
	case gsoUDP:
		protocol = protoUDP
		s.headers = s.transport + headerUDP
	default:
		return errSegments
	}
	if s.size == 0 || s.transport < p.headerLen() || s.headers >= len(p) || s.headers > MaxHeader {
		return errSegments
	}
	s.next = s.headers
	s.base = p.pseudo(protocol)
	if p[0]>>4 == 4 {
		s.id = binary.BigEndian.Uint16(p[4:])
	}
	return nil
}

// Headers returns how many bytes each segment's headers take.
func (s *Splitter) Headers() int { return s.headers }

// SegmentLen returns the length of the segments but the last.
func (s *Splitter) SegmentLen() int { return min(s.headers+s.size, len(s.packet)) }

// Next writes the headers of the next segment and returns its payload; it
// returns nil when there is none. header has Headers bytes.
func (s *Splitter) Next(header []byte) (payload []byte) {
	if s.next >= len(s.packet) {
		return nil
	}
	end := min(s.next+s.size, len(s.packet))
	payload = s.packet[s.next:end]
	copy(header, s.packet[:s.headers])
	h, t := Packet(header), header[s.transport:s.headers]
	if h[0]>>4 == 4 {
		binary.BigEndian.PutUint16(h[4:], s.id+uint16(s.count))
	}
	h.setLength(s.headers + len(payload))
	at := udpSum
	if s.tcp {
		at = tcpSum
		s.tcpHeader(t, end == len(s.packet))
	} else {
		binary.BigEndian.PutUint16(t[udpLen:], uint16(headerUDP+len(payload)))
	}
	t[at], t[at+1] = 0, 0
	s.base.addNumber(uint16(len(t) + len(payload))).add(t).add(payload).put(t[at:])
	if !s.tcp && t[at] == 0 && t[at+1] == 0 {
		t[at], t[at+1] = 0xff, 0xff
	}
	s.next = end
	s.count++
	return payload
}

// tcpHeader makes the header that of the segment with number s.count.
func (s *Splitter) tcpHeader(t []byte, last bool) {
	binary.BigEndian.PutUint32(t[tcpSeq:], s.seq+uint32(s.next-s.headers))
	if !last {
		t[tcpFlags] &^= tcpFIN | tcpPSH
	}
	if s.count > 0 {
		t[tcpFlags] &^= tcpCWR
	}
}
