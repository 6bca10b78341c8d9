package subnet

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
)

// Add returns the address n subnets of this prefix length further on. It wraps
// around at the end of the address space.
func Add(a netip.Addr, n uint64, length int) netip.Addr {
	shift := uint(a.BitLen() - length)
	hi, lo := words(a)
	// Of the two parts of hi one is shifted out.
	lo, carry := bits.Add64(lo, n<<shift, 0)
	hi, _ = bits.Add64(hi, n>>(64-shift)|n<<(shift-64), carry)
	raw := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, hi), lo)
	if a.Is4() {
		raw = raw[12:]
	}
	sum, _ := netip.AddrFromSlice(raw)
	return sum
}

// Distance returns how many subnets of this prefix length lie between the one that
// begins at from and the one that holds to, which must not lie before it; at most
// the largest number.
func Distance(from, to netip.Addr, length int) uint64 {
	shift := uint(to.BitLen() - length)
	hi, lo := words(to)
	fromHi, fromLo := words(from)
	lo, borrow := bits.Sub64(lo, fromLo, 0)
	hi, _ = bits.Sub64(hi, fromHi, borrow)
	if hi>>shift != 0 {
		return math.MaxUint64
	}
	return lo>>shift | hi<<(64-shift) | hi>>(shift-64)
}

// Last returns the last address of a prefix.
func Last(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for i := p.Bits(); i < len(raw)*8; i++ {
		raw[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}

// words returns an address as a number of 128 bits. The mapped form of IPv4
// adds the same upper bits to all addresses, and differences do not see them.
func words(a netip.Addr) (hi, lo uint64) {
	raw := a.As16()
	return binary.BigEndian.Uint64(raw[:8]), binary.BigEndian.Uint64(raw[8:])
}
