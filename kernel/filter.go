package kernel

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
)

// Offsets into a message: the netlink header, then the family header.
const (
	offType     = 4
	offFlags    = 6
	offPort     = 12
	offIndex    = 16 + 4 // In the headers of links, addresses and neighbors.
	offFamily   = 16     // In the header of routes.
	offProtocol = 16 + 5
	// The first attributes of a route are its table and its destination.
	offDstType = 16 + 12 + 8 + 2
	offDst     = offDstType + 2
)

// A filter names at most this many devices; with more it lets all pass.
const maxFiltered = 100

// eventFilter returns a socket filter that lets only events pass that may be
// somebody else's change of ours: not what the socket with this port caused;
// of routes those of our protocol, those that replace another, those that are
// added inside the networks and, if asked for, all that are removed; of the rest
// what is about the devices.
func eventFilter(port uint32, s Subscription, networks []netip.Prefix) []bpf.Instruction {
	const accept, reject = 1 << 18, 0
	f := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offPort, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: native32(port), SkipTrue: 1},
		bpf.RetConstant{Val: reject},
		bpf.LoadAbsolute{Off: offType, Size: 2},
		// Misses have a socket of their own.
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: native16(unix.RTM_GETNEIGH), SkipTrue: 1},
		bpf.RetConstant{Val: reject},
	}
	if s.Removals {
		f = append(f, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: native16(unix.RTM_DELROUTE), SkipTrue: 1}, bpf.RetConstant{Val: accept})
	}
	added := addedInside(networks)
	f = append(f,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: native16(unix.RTM_NEWROUTE), SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: native16(unix.RTM_DELROUTE), SkipTrue: 1},
		bpf.Jump{Skip: uint32(8 + len(added))},
		bpf.LoadAbsolute{Off: offProtocol, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: RouteProtocol, SkipTrue: 2},
		bpf.LoadAbsolute{Off: offFlags, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: native16(unix.NLM_F_REPLACE), SkipFalse: 1},
		bpf.RetConstant{Val: accept},
		bpf.LoadAbsolute{Off: offType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: native16(unix.RTM_NEWROUTE), SkipTrue: 1},
		bpf.RetConstant{Val: reject},
	)
	f = append(f, added...)
	return append(f, onDevices(s.Devices)...)
}

// addedInside ends a filter: a route passes whose destination lies in one of the
// networks.
func addedInside(networks []netip.Prefix) []bpf.Instruction {
	const accept = 1 << 18
	var inside ipfam.Pair[[]bpf.Instruction]
	for _, n := range networks {
		f := ipfam.Of(n.Addr())
		inside[f] = append(inside[f], insideOf(n)...)
	}
	f := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offDstType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: native16(unix.RTA_DST), SkipTrue: 1},
		bpf.RetConstant{Val: accept}, // A default route, or something else comes first.
		bpf.LoadAbsolute{Off: offFamily, Size: 1},
	}
	for _, family := range ipfam.All() {
		f = append(f,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(family.AF()), SkipTrue: 1},
			bpf.Jump{Skip: uint32(len(inside[family]) + 1)})
		f = append(f, inside[family]...)
		f = append(f, bpf.RetConstant{Val: 0})
	}
	return append(f, bpf.RetConstant{Val: 0})
}

// insideOf is the part of a filter that lets a route pass if its destination lies
// in a network of its family.
func insideOf(n netip.Prefix) (f []bpf.Instruction) {
	const accept, perWord = 1 << 18, 3
	words := (n.Bits() + 31) / 32
	address := n.Masked().Addr().AsSlice()
	for i := range words {
		f = append(f,
			bpf.LoadAbsolute{Off: offDst + 4*uint32(i), Size: 4},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^uint32(0) << max(0, 32*(i+1)-n.Bits())},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(address[4*i:]), SkipTrue: uint8(perWord*(words-i-1) + 1)},
		)
	}
	return append(f, bpf.RetConstant{Val: accept})
}

// missFilter returns a socket filter that lets only questions for addresses on
// these devices pass.
func missFilter(indexes []int) []bpf.Instruction {
	return append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: offType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: native16(unix.RTM_GETNEIGH), SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}, onDevices(indexes)...)
}

// onDevices ends a filter: what is about these devices passes.
func onDevices(indexes []int) []bpf.Instruction {
	const accept, reject = 1 << 18, 0
	if len(indexes) > maxFiltered {
		return []bpf.Instruction{bpf.RetConstant{Val: accept}}
	}
	var f []bpf.Instruction
	f = append(f, bpf.LoadAbsolute{Off: offIndex, Size: 4})
	for i, index := range indexes {
		f = append(f, bpf.JumpIf{Cond: bpf.JumpEqual, Val: native32(uint32(index)), SkipTrue: uint8(len(indexes) - i)})
	}
	return append(f, bpf.RetConstant{Val: reject}, bpf.RetConstant{Val: accept})
}

// Filters load in network byte order, messages are in the machine's.

func native16(v uint16) uint32 {
	return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v)))
}

func native32(v uint32) uint32 {
	return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, v))
}
