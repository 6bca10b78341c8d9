package udp

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// address is where datagrams go, as the kernel wants it.
type address struct {
	raw    unix.RawSockaddrInet6 // or RawSockaddrInet4, which is shorter
	length uint32
}

// newAddress returns the address of a port; index is the interface of
// link-local addresses.
func newAddress(a netip.Addr, port, index int) address {
	var out address
	if a.Is4() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&out.raw))
		v4.Family, v4.Addr = unix.AF_INET, a.As4()
		putPort(&v4.Port, port)
		out.length = unix.SizeofSockaddrInet4
		return out
	}
	out.raw.Family, out.raw.Addr = unix.AF_INET6, a.As16()
	putPort(&out.raw.Port, port)
	if a.IsLinkLocalUnicast() {
		out.raw.Scope_id = uint32(index)
	}
	out.length = unix.SizeofSockaddrInet6
	return out
}

func putPort(at *uint16, port int) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(at))[:], uint16(port))
}

// addr returns the IP address.
func (a *address) addr() netip.Addr {
	if a.raw.Family == unix.AF_INET {
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw)).Addr)
	}
	return netip.AddrFrom16(a.raw.Addr).Unmap()
}

func (a *address) port() uint16 {
	// The port is at the same place for both families.
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&a.raw.Port))[:])
}
