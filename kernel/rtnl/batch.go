// Package rtnl speaks rtnetlink(7): many requests per system call, dumps that
// allocate nothing per entry, and multicast events behind a socket filter.
package rtnl

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"
)

// attrTypeMask takes the flags for nesting and byte order off an attribute's
// type.
const attrTypeMask = 0x3fff

// Batch collects requests in one buffer that is used again and again. Begin
// starts a request; what follows belongs to it until the next Begin.
type Batch struct {
	buf    []byte
	starts []int
}

// Begin starts a request and writes its family header, which is padded to four
// bytes.
func (b *Batch) Begin(typ, flags uint16, header []byte) {
	b.finish()
	b.starts = append(b.starts, len(b.buf))
	b.buf = append(b.buf, 0, 0, 0, 0) // The length comes at the end.
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, flags|unix.NLM_F_REQUEST)
	b.buf = append(b.buf, 0, 0, 0, 0, 0, 0, 0, 0) // The number comes at the end; the kernel knows the port.
	b.buf = append(b.buf, header...)
	b.align()
}

// Route starts a request about routes.
func (b *Batch) Route(typ, flags uint16, h unix.RtMsg) {
	b.Begin(typ, flags, []byte{h.Family, h.Dst_len, h.Src_len, h.Tos, h.Table, h.Protocol, h.Scope, h.Type})
	b.buf = binary.NativeEndian.AppendUint32(b.buf, h.Flags)
}

// Neigh starts a request about neighbors or FDB entries.
func (b *Batch) Neigh(typ, flags uint16, h unix.NdMsg) {
	b.Begin(typ, flags, []byte{h.Family, 0, 0, 0})
	b.buf = binary.NativeEndian.AppendUint32(b.buf, uint32(h.Ifindex))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, h.State)
	b.buf = append(b.buf, h.Flags, h.Type)
}

// Bytes adds an attribute.
func (b *Batch) Bytes(typ uint16, value []byte) {
	b.attr(typ, len(value))
	b.buf = append(b.buf, value...)
	b.align()
}

// Text adds an attribute that ends with a zero byte.
func (b *Batch) Text(typ uint16, value string) {
	b.attr(typ, len(value)+1)
	b.buf = append(b.buf, value...)
	b.buf = append(b.buf, 0)
	b.align()
}

// Addr adds an address of 4 or 16 bytes.
func (b *Batch) Addr(typ uint16, a netip.Addr) {
	if a.Is4() {
		raw := a.As4()
		b.Bytes(typ, raw[:])
		return
	}
	raw := a.As16()
	b.Bytes(typ, raw[:])
}

// Uint32 adds a number in the machine's byte order.
func (b *Batch) Uint32(typ uint16, v uint32) {
	b.attr(typ, 4)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, v)
}

// Nest adds an attribute that holds those which fill adds.
func (b *Batch) Nest(typ uint16, fill func()) {
	start := len(b.buf)
	b.attr(typ, 0)
	fill()
	binary.NativeEndian.PutUint16(b.buf[start:], uint16(len(b.buf)-start))
}

func (b *Batch) attr(typ uint16, size int) {
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(unix.SizeofRtAttr+size))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
}

func (b *Batch) align() {
	for len(b.buf)%unix.NLMSG_ALIGNTO != 0 {
		b.buf = append(b.buf, 0)
	}
}

// finish writes the length of the last request.
func (b *Batch) finish() {
	if len(b.starts) > 0 {
		start := b.starts[len(b.starts)-1]
		binary.NativeEndian.PutUint32(b.buf[start:], uint32(len(b.buf)-start))
	}
}

// number gives the requests consecutive numbers. The kernel always answers a
// request that fails; only the last one is told to answer success too.
func (b *Batch) number(first uint32) {
	b.finish()
	for i, start := range b.starts {
		binary.NativeEndian.PutUint32(b.buf[start+8:], first+uint32(i))
	}
	last := b.buf[b.starts[len(b.starts)-1]:]
	flags := binary.NativeEndian.Uint16(last[6:])
	binary.NativeEndian.PutUint16(last[6:], flags|unix.NLM_F_ACK)
}

func (b *Batch) reset() {
	b.buf, b.starts = b.buf[:0], b.starts[:0]
}

// Message is one message of the kernel.
type Message struct {
	Type  uint16
	Flags uint16
	Seq   uint32
	// Port is the port of the socket whose request caused the message, where
	// the kernel reports that.
	Port uint32
	// Body starts with the family header. It is valid until the next read.
	Body []byte
}

// Messages visits the messages of a datagram. It stops at the first that is
// damaged.
func Messages(b []byte) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return
			}
			m := Message{
				Type:  binary.NativeEndian.Uint16(b[4:]),
				Flags: binary.NativeEndian.Uint16(b[6:]),
				Seq:   binary.NativeEndian.Uint32(b[8:]),
				Port:  binary.NativeEndian.Uint32(b[12:]),
				Body:  b[unix.SizeofNlMsghdr:size],
			}
			if !yield(m) {
				return
			}
			b = b[min(aligned(size), len(b)):]
		}
	}
}

// Attrs visits the attributes in b. It stops at the first that is damaged.
func Attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) {
				return
			}
			typ := binary.NativeEndian.Uint16(b[2:]) & attrTypeMask
			if !yield(typ, b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min(aligned(size), len(b)):]
		}
	}
}

func aligned(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// Uint32 reads a number in the machine's byte order; 0 when b is too short.
func Uint32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

// Uint16 reads a number in the machine's byte order; 0 when b is too short.
func Uint16(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.NativeEndian.Uint16(b)
}

// Addr reads an address of 4 or 16 bytes; any other length gives the zero Addr.
func Addr(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Text reads a string up to its zero byte.
func Text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
