package udp

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
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
	to   *net.UDPAddr
	// ecn is whether the node copies congestion marks to the inner packets.
	ecn bool
}

// path is the way to an address. It outlives tables.
type path struct {
	addr netip.Addr
	// mtu is what fits, as far as is known, until that time; 0 means all.
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

// prefixTable holds the peers whose subnets have one prefix length, by the first
// address of the subnet.
type prefixTable struct {
	bits  int
	peers map[netip.Addr]*peer
}

// table holds where packets are sent and who may send some. It never changes.
type table struct {
	network ipfam.Pair[netip.Prefix]
	// own are the addresses of the device; ICMP errors come from there.
	own ipfam.Pair[netip.Addr]
	// prefixTables are in the order of their prefix lengths, longest first.
	prefixTables ipfam.Pair[[]prefixTable]
	// endpoints are the outer addresses of peers.
	endpoints map[netip.Addr]endpoint
}

// endpoint is an outer address; several nodes can share one.
type endpoint struct {
	path    *path
	subnets []netip.Prefix
}

// newTable builds a table; the paths of old are kept.
func newTable(env backend.Env, port int, own subnet.Lease, peers []subnet.Lease, up backend.Uplink, old *table) *table {
	t := &table{network: env.Network, endpoints: make(map[netip.Addr]endpoint, len(peers))}
	for f, on := range env.Families.Each() {
		if !on {
			continue
		}
		t.own[f] = own.Subnet[f].Addr()
		for _, l := range peers {
			if l.Subnet[f].IsValid() && backend.CheckPeer(f, &l, typeName) == nil {
				t.add(f, l, udpAddr(l.Attrs.PublicIP[f], port, up.Index), old, len(peers))
			}
		}
		slices.SortFunc(t.prefixTables[f], func(a, b prefixTable) int { return b.bits - a.bits })
	}
	return t
}

// udpAddr returns where datagrams go; index is the interface of link-local addresses.
func udpAddr(a netip.Addr, port, index int) *net.UDPAddr {
	if a.Is6() && a.IsLinkLocalUnicast() {
		a = a.WithZone(strconv.Itoa(index))
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, uint16(port)))
}

func (t *table) add(f ipfam.Family, l subnet.Lease, to *net.UDPAddr, old *table, room int) {
	addr, s := l.Attrs.PublicIP[f], l.Subnet[f]
	e := t.endpoints[addr]
	if e.path == nil && old != nil {
		e.path = old.endpoints[addr].path
	}
	if e.path == nil {
		e.path = &path{addr: addr}
	}
	e.subnets = append(e.subnets, s)
	t.endpoints[addr] = e
	i := slices.IndexFunc(t.prefixTables[f], func(l prefixTable) bool { return l.bits == s.Bits() })
	if i < 0 {
		i = len(t.prefixTables[f])
		t.prefixTables[f] = append(t.prefixTables[f], prefixTable{s.Bits(), make(map[netip.Addr]*peer, room)})
	}
	t.prefixTables[f][i].peers[s.Addr()] = &peer{path: e.path, to: to, ecn: !l.Attrs.Untyped}
}

// find returns the peer that has the destination of a packet, or nil.
func (t *table) find(p packet.Packet) *peer {
	dst := p.Dst()
	for _, l := range t.prefixTables[p.Family()] {
		subnet, _ := dst.Prefix(l.bits)
		if found := l.peers[subnet.Addr()]; found != nil {
			return found
		}
	}
	return nil
}
