package udp

import (
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
)

// maxReceived is how many messages one system call brings. With GRO each can
// be as long as a packet can be.
const (
	maxReceived = 32
	maxDatagram = 1 << 16
)

// receiver receives datagrams, as many as are there.
type receiver struct {
	socket   *socket
	messages [maxReceived]ipv4.Message
}

func newReceiver(s *socket) *receiver {
	r := &receiver{socket: s}
	memory := make([]byte, maxReceived*(maxDatagram+controlSize))
	take := func(n int) (b []byte) {
		b, memory = memory[:n:n], memory[n:]
		return b
	}
	for i := range r.messages {
		r.messages[i] = ipv4.Message{Buffers: [][]byte{take(maxDatagram)}, OOB: take(controlSize)}
	}
	return r
}

// receive waits for messages. They are valid until the next call.
func (r *receiver) receive() ([]ipv4.Message, error) {
	n, err := r.socket.batch.ReadBatch(r.messages[:], 0)
	if err != nil {
		return nil, err
	}
	return r.messages[:n], nil
}

// from returns the address of a message's sender.
func from(m *ipv4.Message) netip.Addr {
	return m.Addr.(*net.UDPAddr).AddrPort().Addr().WithZone("").Unmap()
}
