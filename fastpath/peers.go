package fastpath

import (
	"net/netip"

	"flannel/backend"
)

// peerTable gives each peer a place in the array of the programs, and a generation
// to each content of a place. A place is not written while a program may read it: a
// peer that changes gets another one.
type peerTable struct {
	size       uint32
	next       uint32
	generation uint32
	// free are the places of former peers, the longest unused first.
	free  []uint32
	peers map[netip.Prefix]peerEntry
	// bits are the lengths of the prefixes.
	bits map[int]int
}

// peerEntry is one peer.
type peerEntry struct {
	place      uint32
	generation uint32
	value      bpfPeer // with generation 0
}

// peerChange is what to write at a place.
type peerChange struct {
	place uint32
	value bpfPeer
}

func newPeerTable(size uint32) *peerTable {
	return &peerTable{size: size, peers: map[netip.Prefix]peerEntry{}, bits: map[int]int{}}
}

// set returns what to write so that the table holds these peers. Peers for which
// there is no room are left out.
func (t *peerTable) set(want map[netip.Prefix]bpfPeer) (changes []peerChange, full bool) {
	for prefix, e := range t.peers {
		if value, ok := want[prefix]; ok && value == e.value {
			continue
		}
		changes = append(changes, peerChange{e.place, e.value}) // its generation is 0
		t.free = append(t.free, e.place)
		delete(t.peers, prefix)
		if t.bits[prefix.Bits()]--; t.bits[prefix.Bits()] == 0 {
			delete(t.bits, prefix.Bits())
		}
	}
	for prefix, value := range want {
		if _, ok := t.peers[prefix]; ok {
			continue
		}
		place, ok := t.place()
		if !ok {
			full = true
			continue
		}
		t.generation++
		t.peers[prefix] = peerEntry{place, t.generation, value}
		t.bits[prefix.Bits()]++
		value.Generation = t.generation
		changes = append(changes, peerChange{place, value})
	}
	return changes, full
}

func (t *peerTable) place() (uint32, bool) {
	if t.next < t.size {
		t.next++
		return t.next - 1, true
	}
	if len(t.free) == 0 {
		return 0, false
	}
	place := t.free[0]
	t.free = t.free[1:]
	return place, true
}

// find returns the peer that an address belongs to.
func (t *peerTable) find(a netip.Addr) (peerEntry, bool) {
	for bits := range t.bits {
		if p, err := a.Prefix(bits); err == nil {
			if e, ok := t.peers[p]; ok {
				return e, true
			}
		}
	}
	return peerEntry{}, false
}

// carriedPeers returns the peers that the programs can carry packets to.
func carriedPeers(status []backend.PeerStatus, wires wires) map[netip.Prefix]bpfPeer {
	want := make(map[netip.Prefix]bpfPeer, len(status))
	for _, s := range status {
		wire, ok := s.Carried.Wire()
		w := wires[formatOf(wire)]
		if !ok || s.How != backend.Tunnel && s.How != backend.Direct || w.index == 0 {
			continue
		}
		value := bpfPeer{Format: uint32(formatOf(wire)), In: uint32(w.index), Mtu: uint32(wire.MTU)}
		// The kernel's device is noted at the uplink, if the programs know its packets.
		value.Out = value.In
		if formatOf(wire) == bpfFormatVXLAN4 {
			value.Out = uint32(wire.Uplink)
		}
		value.Local.Word, value.Remote.Word = words(wire.Local), words(s.Via)
		copy(value.Macs[:6], s.Carried.MAC[:])
		copy(value.Macs[6:], wire.MAC[:])
		want[s.Subnet] = value
	}
	return want
}

// formatOf returns which of the programs' formats a wire has.
func formatOf(w backend.Wire) bpfFormat {
	switch {
	case w.Format == backend.Plain:
		return bpfFormatPLAIN
	case w.Format == backend.VXLAN && w.Local.Is4():
		return bpfFormatVXLAN4
	case w.Format == backend.VXLAN:
		return bpfFormatDEVICE
	}
	return bpfFormatNONE
}

// wires are the ways to peers that are in use, by format; NONE is always empty.
type wires [bpfFormatVXLAN4 + 1]struct {
	wire backend.Wire
	// index is that of the device that the stack sends through.
	index int
}
