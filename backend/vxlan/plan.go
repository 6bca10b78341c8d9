package vxlan

import (
	"fmt"
	"slices"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/subnet"
)

// Plan implements backend.Backend.
func (b *vxlan) Plan(own subnet.Lease, peers []subnet.Lease, h backend.Host) (kernel.State, []backend.PeerStatus, error) {
	if err := b.checkMTU(h.Uplink); err != nil {
		return kernel.State{}, nil, err
	}
	p := planner{backend: b, host: h}
	for f, on := range b.env.Families.Each() {
		if on {
			p.family(f, own, peers)
		}
	}
	return p.state, p.status, nil
}

// planner collects the plan of one pass.
type planner struct {
	backend *vxlan
	host    backend.Host
	state   kernel.State
	status  []backend.PeerStatus
}

func (p *planner) family(f ipfam.Family, own subnet.Lease, peers []subnet.Lease) {
	device := p.backend.device(f, own, p.host.Uplink)
	if p.backend.config.OnDemand {
		p.catch(f, device.Name, own)
	}
	p.grow(len(peers))
	why := p.reasons(device.Name)
	probe := backend.Probe{
		Device: true, Bridge: true, OnDemand: p.backend.config.OnDemand,
		MTUKey: true, MTU: int32(device.MTU), Overhead: int32(overhead[f]),
	}
	p.state.Devices = append(p.state.Devices, device)
	tunnel, direct := p.backend.wire(device), p.host.Uplink.Wire(f).Over(kernel.MAC{})
	macs := newMACOwners(device.MAC, peers)
	records := make([]data, len(peers))
	problems := make([]error, len(peers))
	for i := range peers {
		if !peers[i].Subnet[f].IsValid() {
			continue
		}
		if records[i], problems[i] = p.read(f, &peers[i]); problems[i] == nil {
			macs.add(records[i].MAC, i)
		}
	}
	for i := range peers {
		l := &peers[i]
		if !l.Subnet[f].IsValid() {
			continue
		}
		s := backend.PeerStatus{Name: l.Name, Family: f, Subnet: l.Subnet[f], Via: l.Attrs.PublicIP[f], How: backend.LeftOut}
		err := problems[i]
		if err == nil {
			err = macs.check(records[i].MAC, i)
		}
		if err != nil {
			s.Why = err.Error()
		} else {
			s.How = p.add(f, device.Name, l, macs.right(records[i].MAC, i))
			s.Why, s.Probe = why[s.How], probe
			if s.Carried = direct; s.How == backend.Tunnel {
				s.Carried = tunnel.Over(records[i].MAC)
			}
		}
		p.status = append(p.status, s)
	}
}

// grow makes room for a family's entries at once.
func (p *planner) grow(peers int) {
	s := &p.state
	p.status = slices.Grow(p.status, peers)
	if p.backend.config.OnDemand {
		s.OnDemandPeers = slices.Grow(s.OnDemandPeers, peers)
		return
	}
	s.FDB = slices.Grow(s.FDB, peers)
	s.Neighbors = slices.Grow(s.Neighbors, peers)
	s.Routes = slices.Grow(s.Routes, peers)
}

// catch plans the route that the first packet to a peer takes.
func (p *planner) catch(f ipfam.Family, dev string, own subnet.Lease) {
	network := p.backend.env.Network[f]
	if own.Subnet[f] == network {
		return // no peers, and the route to the network is the bridge's
	}
	p.state.Routes = append(p.state.Routes, kernel.Route{Dst: network, Dev: dev})
	p.state.CatchAllRoutes = append(p.state.CatchAllRoutes, kernel.CatchAllRoute{Dev: dev, Network: network, Own: own.Subnet[f]})
}

// read parses the record of a peer in this family. The error is why the peer
// cannot be used whatever the other records hold.
func (p *planner) read(f ipfam.Family, l *subnet.Lease) (data, error) {
	if err := backend.CheckPeer(f, l, typeName); err != nil {
		return data{}, err
	}
	d, err := parseData(l.Attrs.Data[f])
	if err == nil && d.VNI >= 0 && d.VNI != p.backend.config.VNI {
		err = fmt.Errorf("its VNI is %d, this node's is %d", d.VNI, p.backend.config.VNI)
	}
	return d, err
}

// reasons returns why a peer is reached as it is.
func (p *planner) reasons(device string) map[backend.How]string {
	up := p.host.Uplink.Name
	if p.backend.config.OnDemand {
		device += " on demand"
	}
	if !p.backend.config.DirectRouting {
		return map[backend.How]string{backend.Tunnel: "over " + device}
	}
	return map[backend.How]string{
		backend.Tunnel: "over " + device + ": not on the link of " + up,
		backend.Direct: "on the link of " + up,
	}
}

// add plans the entries of one peer; its FDB entry only if the MAC is not
// planned already. Leases that share an FDB entry are there all the time.
func (p *planner) add(f ipfam.Family, dev string, l *subnet.Lease, r right) backend.How {
	dst, public := l.Subnet[f], l.Attrs.PublicIP[f]
	if p.backend.config.DirectRouting && p.host.OnLinkRoutes.Direct(public) {
		p.state.Routes = append(p.state.Routes, kernel.Route{Dst: dst, Via: public, Dev: p.host.Uplink.Name})
		return backend.Direct
	}
	vtep := dst.Addr()
	fdb := kernel.FDBEntry{Dev: dev, MAC: r.mac, Dst: public}
	neighbor := kernel.Neighbor{Dev: dev, Addr: vtep, MAC: r.mac}
	route := kernel.Route{Dst: dst, Via: vtep, Dev: dev, OnLink: true}
	if p.backend.config.OnDemand && !r.shared {
		p.state.OnDemandPeers = append(p.state.OnDemandPeers, kernel.OnDemandPeer{Subnet: dst, Route: route, Neighbor: neighbor, FDB: fdb})
		return backend.Tunnel
	}
	if r.owns {
		p.state.FDB = append(p.state.FDB, fdb)
	}
	p.state.Neighbors = append(p.state.Neighbors, neighbor)
	p.state.Routes = append(p.state.Routes, route)
	return backend.Tunnel
}

// macOwners knows which peer may use which MAC.
type macOwners struct {
	own   kernel.MAC
	peers []subnet.Lease
	// owners holds positions in peers.
	owners map[kernel.MAC]int32
	// contested are the MACs that several peers want.
	contested map[kernel.MAC]bool
}

// right is what a peer may do with the MAC that it was added with: the one that
// owns it has the FDB entry, others may share that.
type right struct {
	mac          kernel.MAC
	owns, shared bool
}

func (m *macOwners) right(mac kernel.MAC, i int) right {
	return right{mac: mac, owns: m.owns(mac, i), shared: m.contested[mac]}
}

func newMACOwners(own kernel.MAC, peers []subnet.Lease) *macOwners {
	return &macOwners{own: own, peers: peers, owners: make(map[kernel.MAC]int32, len(peers))}
}

func (m *macOwners) add(mac kernel.MAC, i int) {
	if j, taken := m.owners[mac]; taken {
		if m.contested == nil {
			m.contested = make(map[kernel.MAC]bool)
		}
		m.contested[mac] = true
		if !m.peers[i].Precedence.Before(m.peers[j].Precedence) {
			return
		}
	}
	m.owners[mac] = int32(i)
}

// check returns why peer number i may not use the MAC that it was added with.
func (m *macOwners) check(mac kernel.MAC, i int) error {
	if mac == m.own {
		return fmt.Errorf("VtepMAC %s is this node's", mac)
	}
	if m.owns(mac, i) {
		return nil
	}
	if o := &m.peers[m.owners[mac]]; !m.peers[i].SameNode(o) {
		return fmt.Errorf("VtepMAC %s belongs to the older lease %s", mac, o.Name)
	}
	return nil
}

// owns reports whether peer number i is the one that the MAC belongs to.
func (m *macOwners) owns(mac kernel.MAC, i int) bool {
	return !m.contested[mac] || int(m.owners[mac]) == i
}
