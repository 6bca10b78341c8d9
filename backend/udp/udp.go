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

// Type is the backend type in records and configuration.
const Type = "udp"

// devicePrefix begins the name of the device; a number follows.
const devicePrefix = "flannel"

// routeMetric leaves the way free for the route of a flannel that comes back.
const routeMetric = 100

// overhead is what the outer IP and UDP headers take from the uplink's MTU.
var overhead = ipfam.Pair[int]{20 + 8, 40 + 8}

// Backend plans for the TUN device, and moves packets between it and the
// sockets.
type Backend struct {
	env    backend.Env
	config Config
	device string
	*forwarder
}

// New checks the configuration and finds the name of the device.
func New(env backend.Env) (backend.Backend, error) {
	config, warnings, err := ParseConfig(env.Options)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		env.Log.Warn("backend configuration", "problem", w)
	}
	b := &Backend{env: env, config: config, device: env.TUNName(devicePrefix)}
	b.forwarder = newForwarder(env, config, b.device)
	return b, nil
}

// Attrs implements backend.Backend.
func (b *Backend) Attrs(up backend.Uplink) subnet.Attrs {
	return b.env.Attrs(Type, up)
}

// MTU implements backend.Backend. One device serves both families, so the
// larger outer header counts.
func (b *Backend) MTU(up backend.Uplink) int {
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
func (b *Backend) Plan(own subnet.Lease, peers []subnet.Lease, v backend.View) (kernel.State, []backend.PeerStatus, error) {
	if err := backend.CheckMTU(b.MTU(v.Uplink), b.env.Families, v.Uplink); err != nil {
		return kernel.State{}, nil, err
	}
	device := kernel.Device{Name: b.device, MTU: b.MTU(v.Uplink), TUN: true}
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
				status = append(status, b.judge(f, l))
			}
		}
	}
	state.Devices = []kernel.Device{device}
	return state, status, nil
}

// judge says how a peer is reached in one family, and why so.
func (b *Backend) judge(f ipfam.Family, l subnet.Lease) backend.PeerStatus {
	s := backend.PeerStatus{Name: l.Name, Family: f, Subnet: l.Subnet[f], Via: l.Attrs.PublicIP[f], How: backend.LeftOut}
	if s.Why = backend.Unusable(f, &l, Type); s.Why == "" {
		s.How, s.Why = backend.Tunnel, "over "+b.device
	}
	return s
}
