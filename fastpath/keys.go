package fastpath

import (
	"encoding/binary"
	"net/netip"

	"flannel/fastpath/conntrack"
)

// words is an address as the programs have it.
func words(a netip.Addr) (w [4]uint32) {
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

func addrOf(w [4]uint32) netip.Addr {
	var b [16]byte
	for i, v := range w {
		binary.NativeEndian.PutUint32(b[4*i:], v)
	}
	return netip.AddrFrom16(b).Unmap()
}

// wireOrder returns a number as it lies on the wire, and back.
func wireOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

func wireOrder32(v uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return binary.NativeEndian.Uint32(b[:])
}

func keyOf(t conntrack.Tuple) (k bpfKey) {
	k.Source.Word, k.Destination.Word = words(t.Src.Addr()), words(t.Dst.Addr())
	k.SourcePort, k.DestinationPort = wireOrder(t.Src.Port()), wireOrder(t.Dst.Port())
	k.Protocol = t.Protocol
	return k
}

func tupleOf(k bpfKey) conntrack.Tuple {
	return conntrack.Tuple{
		Src:      netip.AddrPortFrom(addrOf(k.Source.Word), wireOrder(k.SourcePort)),
		Dst:      netip.AddrPortFrom(addrOf(k.Destination.Word), wireOrder(k.DestinationPort)),
		Protocol: k.Protocol,
	}
}
