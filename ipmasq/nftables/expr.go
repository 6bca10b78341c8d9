package nftables

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"

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

// exprs returns a rule in the words of the kernel.
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

// side is a condition on an address, as it was read from the kernel.
type side struct {
	ipmasq.Match
	src bool
}

// sides finds the conditions on addresses in a rule. A prefix of whole bytes
// may be compared without a mask.
func sides(f ipfam.Family, list []expr.Any) []side {
	var out []side
	for i, e := range list {
		load, ok := e.(*expr.Payload)
		if !ok || load.Base != expr.PayloadBaseNetworkHeader {
			continue
		}
		rest := list[i+1:]
		bits := int(load.Len) * 8
		if len(rest) > 0 {
			if m, ok := rest[0].(*expr.Bitwise); ok {
				bits = ones(m.Mask)
				rest = rest[1:]
			}
		}
		if len(rest) == 0 {
			continue
		}
		if s, ok := readSide(f, load, bits, rest[0]); ok {
			out = append(out, s)
		}
	}
	return out
}

func readSide(f ipfam.Family, load *expr.Payload, bits int, e expr.Any) (side, bool) {
	cmp, ok := e.(*expr.Cmp)
	if !ok || cmp.Op != expr.CmpOpEq && cmp.Op != expr.CmpOpNeq || load.Offset != srcOffset[f] && load.Offset != dstOffset[f] {
		return side{}, false
	}
	raw := make([]byte, f.Bits()/8)
	copy(raw, cmp.Data)
	a, _ := netip.AddrFromSlice(raw)
	p := netip.PrefixFrom(a, bits)
	return side{ipmasq.Match{Prefix: p.Masked(), Not: cmp.Op == expr.CmpOpNeq}, load.Offset == srcOffset[f]}, p.IsValid()
}

// ones counts the leading ones of a netmask.
func ones(mask []byte) int {
	for i := range len(mask) * 8 {
		if mask[i/8]&(0x80>>(i%8)) == 0 {
			return i
		}
	}
	return len(mask) * 8
}

// names reports whether a rule has a condition on an address that owns accepts.
func names(f ipfam.Family, list []expr.Any, owns func(netip.Prefix) bool) bool {
	return slices.ContainsFunc(sides(f, list), func(s side) bool { return owns(s.Prefix) })
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
