package kernel

import (
	"net/netip"
	"slices"
	"time"
)

// onDemand is what is needed to answer for addresses that have no entries yet.
type onDemand struct {
	// peers are in the order of their subnets.
	peers []OnDemandPeer
	// blackholes are the routes that drop what no lease has, with the time of
	// their making. They are put when the kernel asks for an address there, so
	// that a scan costs one question per hole in the leases and not a neighbor
	// entry per address.
	blackholes map[RouteKey]time.Time
}

const (
	// blackholeLife is how long such a route stays, up to the next pass.
	blackholeLife = time.Minute
	// maxBlackholes bounds what a scan can make us put.
	maxBlackholes = 4096
	// onDemandMetric lets any other route to the same destination win.
	onDemandMetric = 4096
)

func (s State) hasOnDemand() bool { return len(s.OnDemandPeers)+len(s.CatchAllRoutes) > 0 }

// updateOnDemand prepares to answer for the plan of this pass.
func (p *pass) updateOnDemand(now time.Time) {
	d := &p.r.onDemand
	if slices.Equal(p.want.OnDemandPeers, p.before.OnDemandPeers) && slices.Equal(p.want.CatchAllRoutes, p.before.CatchAllRoutes) {
		for k, made := range d.blackholes {
			if now.Sub(made) > blackholeLife {
				delete(d.blackholes, k)
			}
		}
		return
	}
	d.peers = slices.Clone(p.want.OnDemandPeers)
	slices.SortFunc(d.peers, func(a, b OnDemandPeer) int { return a.Subnet.Addr().Compare(b.Subnet.Addr()) })
	// What a blackhole covers may have a lease.
	d.blackholes = map[RouteKey]time.Time{}
}

// addInstalled adds to what is wanted the entries of the on-demand peers of
// which the tables hold at least one, and the blackholes. The three entries of a
// peer belong together: while one is there the kernel does not always ask for
// the others.
func (p *pass) addInstalled() {
	if !p.want.hasOnDemand() {
		return
	}
	d, t, want := &p.r.onDemand, &p.r.cache.tables, &p.want
	fdb, neighbors, routes := slices.Clip(want.FDB), slices.Clip(want.Neighbors), slices.Clip(want.Routes)
	for _, peer := range want.OnDemandPeers {
		e, ok := p.peerEntries(peer)
		if !ok {
			continue
		}
		_, hasFDB := t.fdb[e.fdb.Key]
		_, hasNeighbor := t.neighbors[e.neighbor.Key]
		if _, hasRoute := t.routes[e.route.Key]; hasFDB || hasNeighbor || hasRoute {
			fdb, neighbors, routes = append(fdb, peer.FDB), append(neighbors, peer.Neighbor), append(routes, peer.Route)
		}
	}
	for k := range d.blackholes {
		if _, there := t.routes[k]; !there {
			delete(d.blackholes, k)
			continue
		}
		routes = append(routes, Route{Dst: k.Dst, Blackhole: true, Metric: onDemandMetric})
	}
	want.FDB, want.Neighbors, want.Routes = fdb, neighbors, routes
}

// peerEntries are the three entries of an on-demand peer.
type peerEntries struct {
	fdb      Entry[FDBKey, FDBValue]
	neighbor Entry[NeighborKey, MAC]
	route    Entry[RouteKey, RouteValue]
}

func (p *pass) peerEntries(peer OnDemandPeer) (e peerEntries, ok bool) {
	dev, ok := p.dev(peer.Route.Dev)
	e.fdb = Entry[FDBKey, FDBValue]{FDBKey{dev, peer.FDB.MAC}, FDBValue{Dst: peer.FDB.Dst}}
	e.neighbor = Entry[NeighborKey, MAC]{NeighborKey{dev, peer.Neighbor.Addr}, peer.Neighbor.MAC}
	e.route.Key, e.route.Value = peer.Route.Entry(dev)
	return e, ok
}

// at returns the position of the first peer whose subnet begins after a.
func (d *onDemand) at(a netip.Addr) int {
	i, _ := slices.BinarySearchFunc(d.peers, a, func(e OnDemandPeer, a netip.Addr) int {
		if e.Subnet.Addr().Compare(a) <= 0 {
			return -1
		}
		return 1
	})
	return i
}

// find returns the peer that has an address, or nil.
func (d *onDemand) find(a netip.Addr) *OnDemandPeer {
	if i := d.at(a) - 1; i >= 0 && d.peers[i].Subnet.Contains(a) {
		return &d.peers[i]
	}
	return nil
}

// unleased returns the largest part of the network around an address that
// neither a lease nor this node's subnet overlaps.
func (d *onDemand) unleased(c CatchAllRoute, a netip.Addr) (netip.Prefix, bool) {
	i := d.at(a)
	for bits := c.Network.Bits() + 1; bits <= a.BitLen(); bits++ {
		g, _ := a.Prefix(bits)
		free := !g.Overlaps(c.Own) && (i == 0 || !g.Overlaps(d.peers[i-1].Subnet)) &&
			(i == len(d.peers) || !g.Overlaps(d.peers[i].Subnet))
		if free {
			return g, true
		}
	}
	return netip.Prefix{}, false
}

// newWork is work in the tables of entries that serve peers, with nothing to do.
func (p *pass) newWork() *tableWork {
	b, t := &p.r.backing, &p.r.cache.tables
	return &tableWork{
		fdb:       &work[FDBKey, FDBValue]{p: p, table: b.FDB, cache: t.fdb},
		neighbors: &work[NeighborKey, MAC]{p: p, table: b.Neighbors, cache: t.neighbors},
		routes:    &work[RouteKey, RouteValue]{p: p, table: b.Routes, cache: t.routes},
	}
}
