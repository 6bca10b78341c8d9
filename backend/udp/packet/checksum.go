package packet

import (
	"encoding/binary"
	"math/bits"
)

// sum is a sum of 16-bit words in ones' complement (RFC 1071), not folded. The
// words are added as they lie in memory, whatever the order of the machine.
type sum uint64

// add adds bytes. All but the last piece of what is summed must have an even
// length.
func (s sum) add(b []byte) sum {
	total, carry := uint64(s), uint64(0)
	for len(b) >= 64 {
		w := (*[64]byte)(b)
		total, carry = bits.Add64(total, binary.NativeEndian.Uint64(w[0:]), carry)
		total, carry = bits.Add64(total, binary.NativeEndian.Uint64(w[8:]), carry)
		total, carry = bits.Add64(total, binary.NativeEndian.Uint64(w[16:]), carry)
		total, carry = bits.Add64(total, binary.NativeEndian.Uint64(w[24:]), carry)
		total, carry = bits.Add64(total, binary.NativeEndian.Uint64(w[32:]), carry)
		total, carry = bits.Add64(total, binary.NativeEndian.Uint64(w[40:]), carry)
		total, carry = bits.Add64(total, binary.NativeEndian.Uint64(w[48:]), carry)
		total, carry = bits.Add64(total, binary.NativeEndian.Uint64(w[56:]), carry)
		b = b[64:]
	}
	for len(b) >= 8 {
		total, carry = bits.Add64(total, binary.NativeEndian.Uint64(b), carry)
		b = b[8:]
	}
	var tail [8]byte
	copy(tail[:], b)
	total, carry = bits.Add64(total, binary.NativeEndian.Uint64(tail[:]), carry)
	total, carry = bits.Add64(total, 0, carry)
	return sum(total + carry)
}

// addNumber adds a number of 16 bits.
func (s sum) addNumber(n uint16) sum {
	return s.add([]byte{byte(n >> 8), byte(n)})
}

// fold returns the sum in 16 bits, as it lies in memory.
func (s sum) fold() uint16 {
	n := uint64(s)
	n = n>>32 + n&0xffffffff
	n = n>>32 + n&0xffffffff
	n = n>>16 + n&0xffff
	n = n>>16 + n&0xffff
	n = n>>16 + n&0xffff
	return uint16(n)
}

// put writes the checksum into a header.
func (s sum) put(at []byte) { binary.NativeEndian.PutUint16(at, ^s.fold()) }

// valid reports whether the sum of bytes that include their checksum is right.
func (s sum) valid() bool { return s.fold() == 0xffff }

// replace16 corrects the checksum at for a 16-bit word that changes (RFC 1624).
// Words are in network order.
func replace16(at []byte, before, after uint16) {
	n := uint32(^binary.BigEndian.Uint16(at)) + uint32(^before) + uint32(after)
	n = n>>16 + n&0xffff
	n = n>>16 + n&0xffff
	binary.BigEndian.PutUint16(at, ^uint16(n))
}
