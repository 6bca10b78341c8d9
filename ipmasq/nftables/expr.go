package nftables

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"

	"flannel/internal/firewall"
	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// Where the addresses are in the header of a packet.
var (
	srcOffset = ipfam.Pair[uint32]{12, 8}
	dstOffset = ipfam.Pair[uint32]{16, 24}
)

// register is the one that all conditions use.
const register = 1

// exprs returns a rule as the kernel's expressions.
func exprs(f ipfam.Family, r ipmasq.Rule) []expr.Any {
	var out []expr.Any
	if r.Marked {
		out = append(out,
			&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: markBytes(), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: markBytes()})
	}
	out = append(out, address(r.Src, srcOffset[f])...)
	out = append(out, address(r.Dst, dstOffset[f])...)
	switch r.Do {
	case ipmasq.Masquerade:
		return append(out, &expr.Masq{FullyRandom: r.RandomFully})
	case ipmasq.Accept:
		return append(out, &expr.Verdict{Kind: expr.VerdictAccept})
	}
	return append(out, &expr.Verdict{Kind: expr.VerdictReturn})
}

// markBytes is the mark as a register holds it.
func markBytes() []byte { return binary.NativeEndian.AppendUint32(nil, ipmasq.Mark) }

// address compares the address at an offset of the header.
func address(m ipmasq.Match, offset uint32) []expr.Any {
	if m.Any() {
		return nil
	}
	op := expr.CmpOpEq
	if m.Not {
		op = expr.CmpOpNeq
	}
	size := uint32(m.Prefix.Addr().BitLen() / 8)
	out := []expr.Any{&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}}
	if m.Prefix.Bits() < m.Prefix.Addr().BitLen() {
		out = append(out, &expr.Bitwise{
			SourceRegister: register, DestRegister: register, Len: size,
			Mask: mask(m.Prefix), Xor: make([]byte, size),
		})
	}
	return append(out, &expr.Cmp{Op: op, Register: register, Data: m.Prefix.Addr().AsSlice()})
}

// mask returns the netmask of a prefix.
func mask(p netip.Prefix) []byte {
	out := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		out[i/8] |= 0x80 >> (i % 8)
	}
	return out
}

// names reports whether a rule has a condition on an address that owns accepts.
func names(f ipfam.Family, list []expr.Any, owns func(netip.Prefix) bool) bool {
	conditions, _ := firewall.Conditions(f, list)
	return slices.ContainsFunc(conditions, func(c firewall.Condition) bool {
		return (c.Field == firewall.Src || c.Field == firewall.Dst) && owns(c.Values)
	})
}

// isFlannelMark recognises the mark rule that flannel writes: without a mask.
func isFlannelMark(list []expr.Any) bool {
	flannels := wanted{exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: markBytes()},
		&expr.Verdict{Kind: expr.VerdictReturn},
	}}
	return wanted{exprs: list}.key(ipfam.V4) == flannels.key(ipfam.V4)
}
