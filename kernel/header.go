package kernel

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// How the kernel calls the kinds of devices that are made here.
const (
	kindVXLAN = "vxlan"
	kindTUN   = "tun"
)

// The headers that follow the netlink header, as in rtnetlink(7).

func linkHeader(index int, flags, mask uint32) []byte {
	h := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	binary.NativeEndian.PutUint32(h[8:], flags)
	binary.NativeEndian.PutUint32(h[12:], mask)
	return h
}

func addrHeader(family uint8, bits int, index int) []byte {
	h := make([]byte, unix.SizeofIfAddrmsg)
	h[0], h[1] = family, uint8(bits)
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	return h
}

func neighHeader(h *[unix.SizeofNdMsg]byte, family uint8, index int, flags uint8) []byte {
	h[0] = family
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	binary.NativeEndian.PutUint16(h[8:], unix.NUD_PERMANENT)
	h[10] = flags
	return h[:]
}

func putRouteFlags(h *[unix.SizeofRtMsg]byte, flags uint32) {
	binary.NativeEndian.PutUint32(h[8:], flags)
}

func routeHeader(h *[unix.SizeofRtMsg]byte, family uint8, bits int) {
	h[0], h[1] = family, uint8(bits)
	h[4] = unix.RT_TABLE_MAIN
}
