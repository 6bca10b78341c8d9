package udp

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"flannel/backend"
	"flannel/backend/udp/packet"
	"flannel/internal/ipfam"
	"flannel/subnet"
)

// peer is a node in one family.
type peer struct {
	path *path
	to   address
	// ecn says that the node carries congestion marks over to the packets.
	ecn bool
}

// path is the way to an address. It outlives tables.
type path struct {
	addr netip.Addr
	// mtu is what fits, as far as is known, until the time; 0 means all.
	mtu   atomic.Int32
	until atomic.Int64
}

// pathMTULife is how long a path's MTU is believed before a larger packet is
// tried again. The kernel itself remembers it for ten minutes.
const pathMTULife = time.Minute

// limit returns the longest packet that the path takes, 0 when it takes all
// that the device lets through.
func (p *path) limit(now time.Time) int {
	mtu := p.mtu.Load()
	if mtu == 0 || now.UnixNano() > p.until.Load() {
		return 0
	}
	return int(mtu)
}

func (p *path) learn(limit int, now time.Time) {
	p.until.Store(now.Add(pathMTULife).UnixNano())
	p.mtu.Store(int32(limit))
}

// key is an address cut to the length of a prefix.
type key struct{ high, low uint64 }

// level holds the peers whose subnets have one length.
type level struct {
	high, low uint64 // the mask
	peers     map[key]*peer
}

// table says where packets go and who may send some. It never changes.
type table struct {
	network ipfam.Pair[netip.Prefix]
	// own are the addresses of the device; ICMP errors come from there.
	own ipfam.Pair[netip.Addr]
	// levels are in the order of their prefix lengths, longest first.
	levels ipfam.Pair[[]level]
	// places are the outer addresses of peers.
	places map[netip.Addr]place
}

// place is an outer address; several nodes can share one.
type place struct {
	path    *path
	subnets []netip.Prefix
}

// newTable builds a table; what old knows of paths is kept.
func newTable(env backend.Env, port int, own subnet.Lease, peers []subnet.Lease, up backend.Uplink, old *table) *table {
	t := &table{network: env.Network, places: make(map[netip.Addr]place, len(peers))}
	for f, on := range env.Families.Each() {
		if !on {
			continue
		}
		t.own[f] = own.Subnet[f].Addr()
		for _, l := range peers {
			if l.Subnet[f].IsValid() && backend.CheckPeer(f, &l, typeName) == nil {
				t.add(f, l, newAddress(l.Attrs.PublicIP[f], port, up.Index), old, len(peers))
			}
		}
		slices.SortFunc(t.levels[f], func(a, b level) int {
			return compare(b.high, a.high)*2 + compare(b.low, a.low)
		})
	}
	return t
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (t *table) add(f ipfam.Family, l subnet.Lease, to address, old *table, room int) {
	addr, s := l.Attrs.PublicIP[f], l.Subnet[f]
	here := t.places[addr]
	if here.path == nil && old != nil {
		here.path = old.places[addr].path
	}
	if here.path == nil {
		here.path = &path{addr: addr}
	}
	here.subnets = append(here.subnets, s)
	t.places[addr] = here
	high, low := mask(f, s.Bits())
	i := slices.IndexFunc(t.levels[f], func(l level) bool { return l.high == high && l.low == low })
	if i < 0 {
		i = len(t.levels[f])
		t.levels[f] = append(t.levels[f], level{high, low, make(map[key]*peer, room)})
	}
	t.levels[f][i].peers[keyOf(s.Addr())] = &peer{path: here.path, to: to, ecn: !l.Attrs.Untyped}
}

// mask has as many leading ones as bits says; IPv4 uses the upper half alone.
func mask(f ipfam.Family, bits int) (high, low uint64) {
	if f == ipfam.V4 || bits <= 64 {
		return ^uint64(0) << (64 - bits), 0
	}
	return ^uint64(0), ^uint64(0) << (128 - bits)
}

func keyOf(a netip.Addr) key {
	if a.Is4() {
		b := a.As4()
		return key{high: uint64(binary.BigEndian.Uint32(b[:])) << 32}
	}
	b := a.As16()
	return key{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])}
}

// find returns the peer that has the destination of a packet, or nil.
func (t *table) find(p packet.Packet) *peer {
	k := keyOf(p.Dst())
	for i := range t.levels[p.Family()] {
		l := &t.levels[p.Family()][i]
		if found := l.peers[key{k.high & l.high, k.low & l.low}]; found != nil {
			return found
		}
	}
	return nil
}
