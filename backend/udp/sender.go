package udp

import (
	"bytes"
	"errors"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"flannel/backend/udp/packet"
	"flannel/internal/ipfam"
)

// Limits of one flush.
const (
	maxMessages = 128
	maxPieces   = 1024
	// maxSegments is how many datagrams the kernel makes of one message.
	maxSegments = 64
)

// maxMessage is the longest payload of a message.
var maxMessage = ipfam.Pair[int]{65535 - 20 - 8, 65535 - 8}

// message is one or more datagrams to one peer. All are equally long but the
// last, which may be shorter.
type message struct {
	peer     *peer
	tos      byte
	size     int // of the first datagram
	count    int
	total    int
	closed   bool // the last one is shorter
	first    int  // piece
	perPart  int  // pieces per datagram
	controls control
}

// sender collects datagrams and sends them with few system calls, in order.
type sender struct {
	socket   *socket
	messages [maxMessages]message
	count    int
	pieces   [maxPieces][]byte
	used     int
	// batch are the messages as the kernel takes them.
	batch [maxMessages]ipv4.Message

	// failed is called for a message that the kernel refused.
	failed func(m *message, err error)
}

func newSender(s *socket, failed func(*message, error)) *sender {
	return &sender{socket: s, failed: failed}
}

// full reports whether another datagram may not fit.
func (s *sender) full() bool { return s.count == maxMessages || s.used+2 > maxPieces }

// add takes a datagram whose payload is header followed by body; one of them
// may be empty. Both must stay as they are until flush, and there must be room.
func (s *sender) add(p *peer, tos byte, header, body []byte) {
	size, pieces := len(header)+len(body), 0
	first := s.used
	for _, b := range [2][]byte{header, body} {
		if len(b) > 0 {
			s.pieces[s.used] = b
			s.used++
			pieces++
		}
	}
	if s.joins(p, tos, size, pieces) {
		m := &s.messages[s.count-1]
		m.count++
		m.total += size
		m.closed = size < m.size
		return
	}
	m := &s.messages[s.count]
	m.peer, m.tos, m.size, m.count, m.total = p, tos, size, 1, size
	m.closed, m.first, m.perPart = false, first, pieces
	s.count++
}

// joins reports whether a datagram goes into the last message.
func (s *sender) joins(p *peer, tos byte, size, pieces int) bool {
	if s.count == 0 || !s.socket.gso {
		return false
	}
	m := &s.messages[s.count-1]
	return m.peer == p && m.tos == tos && !m.closed && size <= m.size && pieces == m.perPart &&
		m.count < maxSegments && m.total+size <= maxMessage[s.socket.family]
}

// flush sends what was collected. What the kernel refuses is given to failed;
// the others are sent all the same.
func (s *sender) flush() error {
	for i := range s.count {
		s.prepare(i)
	}
	for start := 0; start < s.count; {
		n, err := s.socket.batch.WriteBatch(s.batch[start:s.count], 0)
		var refused unix.Errno
		switch {
		case err == nil:
			start += n
		case errors.As(err, &refused):
			s.failed(&s.messages[start], refused)
			start++
		default:
			return err
		}
	}
	s.count, s.used = 0, 0
	return nil
}

// prepare fills in what the kernel reads.
func (s *sender) prepare(i int) {
	m := &s.messages[i]
	segment := 0
	if m.count > 1 {
		segment = m.size
	}
	s.batch[i] = ipv4.Message{
		Buffers: s.pieces[m.first : m.first+m.count*m.perPart],
		OOB:     m.controls.outgoing(s.socket.family, m.tos, segment),
		Addr:    m.peer.to,
	}
}

// datagrams returns copies of the packets in a message.
func (s *sender) datagrams(m *message) []packet.Packet {
	var out []packet.Packet
	for i := range m.count {
		if p, ok := packet.Parse(bytes.Join(s.pieces[m.first+i*m.perPart:m.first+(i+1)*m.perPart], nil)); ok {
			out = append(out, p)
		}
	}
	return out
}
