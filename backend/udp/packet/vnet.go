package packet

import "encoding/binary"

// VnetLen is the length of the header that precedes a packet on a TUN device.
const VnetLen = 10

// Values of the virtio-net header (linux/virtio_net.h).
const (
	vnetNeedsCsum = 1
	gsoNone       = 0
	gsoTCPv4      = 1
	gsoTCPv6      = 4
	gsoUDP        = 5
	gsoECN        = 0x80
)

// Vnet is the virtio-net header: what the other side of the TUN device has
// still to do with a packet.
type Vnet struct {
	flags, gsoType                             uint8
	hdrLen, gsoSize, checksumStart, checksumAt uint16
}

// DecodeVnet reads VnetLen bytes.
func DecodeVnet(b []byte) Vnet {
	return Vnet{
		flags: b[0], gsoType: b[1],
		hdrLen:        binary.NativeEndian.Uint16(b[2:]),
		gsoSize:       binary.NativeEndian.Uint16(b[4:]),
		checksumStart: binary.NativeEndian.Uint16(b[6:]),
		checksumAt:    binary.NativeEndian.Uint16(b[8:]),
	}
}

// Encode writes VnetLen bytes.
func (v Vnet) Encode(b []byte) {
	b[0], b[1] = v.flags, v.gsoType
	binary.NativeEndian.PutUint16(b[2:], v.hdrLen)
	binary.NativeEndian.PutUint16(b[4:], v.gsoSize)
	binary.NativeEndian.PutUint16(b[6:], v.checksumStart)
	binary.NativeEndian.PutUint16(b[8:], v.checksumAt)
}

// Whole reports whether the packet is to be sent as it is.
func (v Vnet) Whole() bool { return v.gsoType == gsoNone }

// Complete fills in a checksum that the sender has left to the device. It
// reports false for a header that makes no sense.
func (v Vnet) Complete(p Packet) bool {
	if v.flags&vnetNeedsCsum == 0 {
		return true
	}
	start, at := int(v.checksumStart), int(v.checksumStart)+int(v.checksumAt)
	if start < p.headerLen() || at+2 > len(p) || v.checksumAt%2 != 0 {
		return false
	}
	// The field holds the sum of the pseudo header.
	s := sum(0).add(p[start:])
	s.put(p[at:])
	if p[at] == 0 && p[at+1] == 0 {
		p[at], p[at+1] = 0xff, 0xff // For UDP zero means none.
	}
	return true
}
