package udp

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
)

// controlSize is room for the control messages of one datagram.
const controlSize = 96

// control is that room, aligned as the kernel wants it.
type control struct {
	_ [0]uint64
	b [controlSize]byte
}

// put appends a control message and returns the length with it.
func (c *control) put(used, level, kind int, value []byte) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c.b[used]))
	h.Level, h.Type = int32(level), int32(kind)
	h.SetLen(unix.CmsgLen(len(value)))
	copy(c.b[used+unix.CmsgLen(0):], value)
	return used + unix.CmsgSpace(len(value))
}

// tosOption is how the TOS of one datagram is set and read.
var tosOption = ipfam.Pair[[2]int]{{unix.IPPROTO_IP, unix.IP_TOS}, {unix.IPPROTO_IPV6, unix.IPV6_TCLASS}}

// outgoing returns what is not the default: the TOS, and the size of segments.
func (c *control) outgoing(f ipfam.Family, tos byte, segment int) []byte {
	used := 0
	var value [4]byte
	if tos != 0 {
		binary.NativeEndian.PutUint32(value[:], uint32(tos))
		used = c.put(used, tosOption[f][0], tosOption[f][1], value[:4])
	}
	if segment != 0 {
		binary.NativeEndian.PutUint16(value[:], uint16(segment))
		used = c.put(used, unix.IPPROTO_UDP, unix.UDP_SEGMENT, value[:2])
	}
	return c.b[:used]
}

// incoming reads the TOS, and the size of the datagrams when there are many.
func incoming(b []byte) (tos byte, segment int) {
	for len(b) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			return tos, segment
		}
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TOS && len(data) >= 1:
			tos = data[0]
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_TCLASS && len(data) >= 4:
			tos = byte(binary.NativeEndian.Uint32(data))
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 2:
			segment = int(binary.NativeEndian.Uint16(data))
		}
		b = rest
	}
	return tos, segment
}
