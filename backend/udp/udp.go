// Package udp is an overlay that needs nothing of the network between the nodes
// but one UDP port, and nothing of the kernel but a TUN device: the daemon
// moves the packets itself.
package udp

import (
	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/subnet"
)

// devicePrefix begins the name of the device; a number follows.
const devicePrefix = "flannel"

// routeMetric leaves the way free for the route of a flannel that comes back.
const routeMetric = 100

// overhead is what the outer IP and UDP headers take from the uplink's MTU.
var overhead = ipfam.Pair[int]{20 + 8, 40 + 8}

// udp plans for the TUN device, and moves packets between it and the sockets.
type udp struct {
	env    backend.Env
	config Config
	device string
	*forwarder
}

// New implements backend.Config. It finds the name of the device.
func (c Config) New(env backend.Env) (backend.Backend, error) {
	b := &udp{env: env, config: c, device: env.TUNName(devicePrefix)}
	b.forwarder = newForwarder(env, c, b.device)
	return b, nil
}

// Attrs implements backend.Backend.
func (b *udp) Attrs(up backend.Uplink) subnet.Attrs {
	return b.env.Attrs(typeName, up)
}

// MTU implements backend.Backend. One device serves both families, so the
// larger outer header counts.
func (b *udp) MTU(up backend.Uplink) int {
	most := 0
	for f, on := range b.env.Families.Each() {
		if on {
			most = max(most, overhead[f])
		}
	}
	return up.MTU - most
}

// Plan implements backend.Backend: one device, and one route to the network.
// Which peer a packet goes to is decided here and not in the kernel.
func (b *udp) Plan(own subnet.Lease, peers []subnet.Lease, h backend.Host) (kernel.State, []backend.PeerStatus, error) {
	if err := backend.CheckMTU(b.MTU(h.Uplink), b.env.Families, "raise the MTU of "+h.Uplink.Name); err != nil {
		return kernel.State{}, nil, err
	}
	device := kernel.Device{Name: b.device, MTU: b.MTU(h.Uplink), TUN: true}
	var state kernel.State
	var status []backend.PeerStatus
	for f, on := range b.env.Families.Each() {
		if !on {
			continue
		}
		device.Addrs = append(device.Addrs, ipfam.Host(own.Subnet[f].Addr()))
		// A node that has all of the network has no peers, and its bridge the route.
		if network := b.env.Network[f]; own.Subnet[f] != network {
			state.Routes = append(state.Routes, kernel.Route{Dst: network, Dev: b.device, Metric: routeMetric})
		}
		for _, l := range peers {
			if l.Subnet[f].IsValid() {
				status = append(status, b.peerStatus(f, l))
			}
		}
	}
	state.Devices = []kernel.Device{device}
	return state, status, nil
}

// peerStatus returns how a peer is reached in one family, and why so.
func (b *udp) peerStatus(f ipfam.Family, l subnet.Lease) backend.PeerStatus {
	s := backend.PeerStatus{Name: l.Name, Family: f, Subnet: l.Subnet[f], Via: l.Attrs.PublicIP[f], How: backend.LeftOut}
	if err := backend.CheckPeer(f, &l, typeName); err != nil {
		s.Why = err.Error()
		return s
	}
	s.How, s.Why = backend.Tunnel, "over "+b.device
	return s
}
