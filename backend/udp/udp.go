// Package udp is an overlay that needs nothing of the network between the nodes
// but one UDP port, and nothing of the kernel but a TUN device: the daemon
// moves the packets itself.
package udp

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/logonce"
	"flannel/internal/loop"
	"flannel/kernel"
	"flannel/subnet"
)

// devicePrefix begins the name of the device; a number follows.
const devicePrefix = "flannel"

// routeMetric leaves the way free for the route of a flannel that comes back.
const routeMetric = 100

// overhead is what the outer IP and UDP headers take from the uplink's MTU.
var overhead = ipfam.Pair[int]{20 + 8, 40 + 8}

// udp plans for the TUN device, and moves packets between it and the sockets, in
// one session after the other.
type udp struct {
	env    backend.Env
	config Config
	device string
	may    offloads

	// last is what the table was made from; only Use knows it.
	last     source
	tables   atomic.Pointer[table]
	counters counters
	// unknownSources have sent packets and are named by no lease. sendErrors are
	// the addresses to which the kernel does not send.
	unknownSources, sendErrors *logonce.Set[netip.Addr]
	// kick is signalled when setup is another one, or the device may be there.
	kick loop.Signal

	mu      sync.Mutex
	setup   *setup // nil until the first Use
	problem error  // of the present session
}

// maxLogged bounds what is remembered of addresses that anybody can invent.
const maxLogged = 256

// New implements backend.Config. It finds the name of the device.
func (c Config) New(env backend.Env) (backend.Backend, error) {
	return &udp{
		env: env, config: c, device: env.TUNName(devicePrefix), may: all,
		kick: loop.NewSignal(), problem: errStarting, counters: newCounters(env.Counter),
		unknownSources: logonce.NewSet[netip.Addr](maxLogged), sendErrors: logonce.NewSet[netip.Addr](maxLogged),
	}, nil
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
				status = append(status, b.peerStatus(f, l, h.Uplink))
			}
		}
	}
	state.Devices = []kernel.Device{device}
	return state, status, nil
}

// peerStatus returns how a peer is reached in one family, and why so.
func (b *udp) peerStatus(f ipfam.Family, l subnet.Lease, up backend.Uplink) backend.PeerStatus {
	s := backend.PeerStatus{Name: l.Name, Family: f, Subnet: l.Subnet[f], Via: l.Attrs.PublicIP[f], How: backend.LeftOut}
	if err := backend.CheckPeer(f, &l, typeName); err != nil {
		s.Why = err.Error()
		return s
	}
	s.How, s.Why = backend.Tunnel, "over "+b.device
	s.Probe = backend.Probe{Device: true, MTU: int32(b.MTU(up)), Overhead: int32(up.MTU - b.MTU(up))}
	return s
}
