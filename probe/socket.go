package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
)

// magic begins the data of every probe: so the daemons know each other's.
const magic = "flanneld"

// sendLimit is how long a packet may wait for room.
const sendLimit = time.Second

// socket sends probes of one family and receives what comes back.
type socket interface {
	// send sends an echo request that has this size with its IP header.
	send(to netip.Addr, seq uint16, size int) error
	// receive blocks until there is an answer or a peer's probe; it fails once
	// the socket is closed.
	receive() (message, error)
	// hear has the kernel pass on probes of others, or drop them.
	hear(requests bool) error
	Close() error
}

// message is an answer to a probe of this daemon, or a probe of another one.
type message struct {
	from    netip.Addr
	request bool
	seq     uint16
}

// protocol is what differs between the families.
type protocol struct {
	network, any     string
	number           int
	header           int // of IP, in bytes
	request, reply   icmp.Type
	level, pmtu, set int
	skipHeader       bpf.Instruction
}

var protocols = ipfam.Pair[protocol]{
	{
		network: "ip4:icmp", any: "0.0.0.0", number: unix.IPPROTO_ICMP, header: ipv4.HeaderLen,
		request: ipv4.ICMPTypeEcho, reply: ipv4.ICMPTypeEchoReply,
		level: unix.IPPROTO_IP, pmtu: unix.IP_MTU_DISCOVER, set: unix.IP_PMTUDISC_PROBE,
		// A filter sees the IP header here and not with IPv6.
		skipHeader: bpf.LoadMemShift{Off: 0},
	},
	{
		network: "ip6:ipv6-icmp", any: "::", number: unix.IPPROTO_ICMPV6, header: ipv6.HeaderLen,
		request: ipv6.ICMPTypeEchoRequest, reply: ipv6.ICMPTypeEchoReply,
		level: unix.IPPROTO_IPV6, pmtu: unix.IPV6_MTU_DISCOVER, set: unix.IPV6_PMTUDISC_PROBE,
		skipHeader: bpf.LoadConstant{Dst: bpf.RegX, Val: 0},
	},
}

// icmpSocket is a raw socket; all of a daemon's probes have one identifier.
type icmpSocket struct {
	protocol
	conn   net.PacketConn
	id     uint16
	buffer [128]byte
}

// open opens the socket of a family, in the network namespace of this thread. It
// needs CAP_NET_RAW.
func open(ctx context.Context, f ipfam.Family, id uint16) (socket, error) {
	s := &icmpSocket{protocol: protocols[f], id: id}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		return errors.Join(raw.Control(func(fd uintptr) { failed = s.prepare(int(fd)) }), failed)
	}}
	var err error
	if s.conn, err = config.ListenPacket(ctx, s.network, s.any); err != nil {
		return nil, fmt.Errorf("open a raw socket: %w", err)
	}
	return s, nil
}

// prepare has the kernel ignore what it has learned of paths, which may be out of
// date, and drop what nobody here waits for.
func (s *icmpSocket) prepare(fd int) error {
	if err := unix.SetsockoptInt(fd, s.level, s.pmtu, s.set); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return s.attach(fd, true)
}

func (s *icmpSocket) hear(requests bool) error {
	conn, ok := s.conn.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%T has no descriptor", s.conn)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	return errors.Join(raw.Control(func(fd uintptr) { failed = s.attach(int(fd), requests) }), failed)
}

// attach has the kernel drop what is none of ours, and probes of others unless
// requests is set.
func (s *icmpSocket) attach(fd int, requests bool) error {
	filter, err := bpf.Assemble(s.filter(requests))
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(filter))
	for i, f := range filter {
		code[i] = unix.SockFilter{Code: f.Op, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	return os.NewSyscallError("setsockopt", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program))
}

// filter accepts answers to probes of this daemon and, if requests is set, probes of
// all daemons.
func (s *icmpSocket) filter(requests bool) []bpf.Instruction {
	const whole = 1 << 18
	request := uint32(0)
	if requests {
		request = whole
	}
	return []bpf.Instruction{
		s.skipHeader,
		bpf.LoadIndirect{Off: 8, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32([]byte(magic)), SkipTrue: 5},
		bpf.LoadIndirect{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: typeNumber(s.request), SkipTrue: 5},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: typeNumber(s.reply), SkipTrue: 2},
		bpf.LoadIndirect{Off: 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(s.id), SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: whole},
		bpf.RetConstant{Val: request},
	}
}

func typeNumber(t icmp.Type) uint32 {
	switch t := t.(type) {
	case ipv4.ICMPType:
		return uint32(t)
	case ipv6.ICMPType:
		return uint32(t)
	}
	panic("neither ICMP nor ICMPv6")
}

const icmpHeader = 8

func (s *icmpSocket) send(to netip.Addr, seq uint16, size int) error {
	data := make([]byte, max(size-s.header-icmpHeader, len(magic)))
	copy(data, magic)
	packet, err := (&icmp.Message{Type: s.request, Body: &icmp.Echo{ID: int(s.id), Seq: int(seq), Data: data}}).Marshal(nil)
	if err != nil {
		return err
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(sendLimit)); err != nil {
		return err
	}
	_, err = s.conn.WriteTo(packet, &net.IPAddr{IP: to.AsSlice()})
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno // without the addresses
	}
	return err
}

func (s *icmpSocket) receive() (message, error) {
	for {
		n, addr, err := s.conn.ReadFrom(s.buffer[:])
		if err != nil {
			return message{}, err
		}
		if m, ok := s.parse(s.buffer[:n]); ok {
			if ip, isIP := addr.(*net.IPAddr); isIP {
				from, _ := netip.AddrFromSlice(ip.IP)
				m.from = from.Unmap()
				return m, nil
			}
		}
	}
}

// parse reads a packet that may be anybody's.
func (s *icmpSocket) parse(packet []byte) (message, bool) {
	m, err := icmp.ParseMessage(s.number, packet)
	if err != nil {
		return message{}, false
	}
	echo, ok := m.Body.(*icmp.Echo)
	if !ok || !bytes.HasPrefix(echo.Data, []byte(magic)) {
		return message{}, false
	}
	request := m.Type == s.request
	if !request && (m.Type != s.reply || echo.ID != int(s.id)) {
		return message{}, false
	}
	return message{request: request, seq: uint16(echo.Seq)}, true
}

func (s *icmpSocket) Close() error { return s.conn.Close() }
