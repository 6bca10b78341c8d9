package ping

import (
	"encoding/binary"

	"flannel/internal/ipfam"
)

// An echo request is the ICMP header (type, code, checksum, identifier, low
// half of the number) and the payload: the cookie and the whole number.
const (
	headerLen = 8
	packetLen = headerLen + 16
)

// Types of ICMP messages per family.
var (
	echoRequest = ipfam.Pair[byte]{8, 128}
	echoReply   = ipfam.Pair[byte]{0, 129}
)

// encode writes echo request number seq. The kernel fills in the checksum of
// ICMPv6.
func encode(f ipfam.Family, cookie uint64, seq uint32) []byte {
	b := make([]byte, packetLen)
	b[0] = echoRequest[f]
	binary.BigEndian.PutUint16(b[4:], uint16(cookie))
	binary.BigEndian.PutUint16(b[6:], uint16(seq))
	binary.BigEndian.PutUint64(b[headerLen:], cookie)
	binary.BigEndian.PutUint32(b[headerLen+8:], seq)
	if f == ipfam.V4 {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// decode returns the number of an echo reply, if it answers a request with
// this cookie.
func decode(f ipfam.Family, cookie uint64, b []byte) (seq uint32, ok bool) {
	if len(b) != packetLen || b[0] != echoReply[f] || binary.BigEndian.Uint64(b[headerLen:]) != cookie {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[headerLen+8:]), true
}

// checksum is the Internet checksum of an even number of bytes (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
