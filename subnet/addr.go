package subnet

import (
	"math/big"
	"net/netip"
)

// Nth returns the subnet number n, counted from 0, of those with this prefix
// length in a network. It reports false when the network has no such subnet.
func Nth(network netip.Prefix, bits int, n uint64) (netip.Prefix, bool) {
	room := bits - network.Bits()
	if room < 0 || room < 64 && n>>uint(room) != 0 {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(Add(network.Masked().Addr(), n, bits), bits), true
}

// Add returns the address n subnets of this prefix length further on. It wraps
// around at the end of the address space.
func Add(a netip.Addr, n uint64, bits int) netip.Addr {
	offset := new(big.Int).SetUint64(n)
	offset.Lsh(offset, uint(a.BitLen()-bits))
	return fromInt(offset.Add(offset, toInt(a)), a.BitLen())
}

func lastSubnet(network netip.Prefix, bits int) netip.Prefix {
	size := func(bits int) *big.Int {
		return new(big.Int).Lsh(big.NewInt(1), uint(network.Addr().BitLen()-bits))
	}
	n := toInt(network.Masked().Addr())
	n.Add(n, size(network.Bits()))
	n.Sub(n, size(bits))
	return netip.PrefixFrom(fromInt(n, network.Addr().BitLen()), bits)
}

func toInt(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }

func fromInt(n *big.Int, bitLen int) netip.Addr {
	mask := new(big.Int).Lsh(big.NewInt(1), uint(bitLen))
	n.And(n, mask.Sub(mask, big.NewInt(1)))
	raw := n.FillBytes(make([]byte, bitLen/8))
	a, _ := netip.AddrFromSlice(raw)
	return a
}
