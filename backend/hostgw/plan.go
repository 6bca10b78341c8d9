package hostgw

import (
	"fmt"
	"net/netip"
	"slices"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/subnet"
)

// Plan implements backend.Backend.
func (b *hostgw) Plan(_ subnet.Lease, peers []subnet.Lease, h backend.Host) (kernel.State, []backend.PeerStatus, error) {
	p := planner{host: h, direct: "on the link of " + h.Uplink.Name}
	for f, on := range b.env.Families.Each() {
		if on {
			p.family(f, peers)
		}
	}
	return p.state, p.status, nil
}

// planner collects the plan of one pass.
type planner struct {
	host   backend.Host
	direct string // why a peer is reached
	state  kernel.State
	status []backend.PeerStatus
}

func (p *planner) family(f ipfam.Family, peers []subnet.Lease) {
	p.state.Routes = slices.Grow(p.state.Routes, len(peers))
	p.status = slices.Grow(p.status, len(peers))
	carried := p.host.Uplink.Wire(f).Over(kernel.MAC{})
	for _, l := range peers {
		if !l.Subnet[f].IsValid() {
			continue
		}
		s := backend.PeerStatus{Name: l.Name, Family: f, Subnet: l.Subnet[f], Via: l.Attrs.PublicIP[f]}
		s.How, s.Why = p.classify(f, l)
		if s.How == backend.Direct {
			p.state.Routes = append(p.state.Routes, kernel.Route{Dst: s.Subnet, Via: s.Via, Dev: p.host.Uplink.Name})
			s.Probe = backend.Probe{Bridge: true, MTU: int32(p.host.Uplink.MTU)}
			s.Carried = carried
		}
		p.status = append(p.status, s)
	}
}

// classify returns how a peer is reached in one family, and why so.
func (p *planner) classify(f ipfam.Family, l subnet.Lease) (backend.How, string) {
	if err := backend.CheckPeer(f, &l, typeName); err != nil {
		return backend.LeftOut, err.Error()
	}
	public := l.Attrs.PublicIP[f]
	if !p.onLink(public) {
		return backend.Unreachable, fmt.Sprintf("%s is not on the link of %s; `ip route get %s` shows the way that this host has",
			public, p.host.Uplink.Name, public)
	}
	return backend.Direct, p.direct
}

// onLink reports whether an address is a neighbour's. Link-local IPv6 addresses
// always are; no route shows them.
func (p *planner) onLink(a netip.Addr) bool {
	return a.Is6() && a.IsLinkLocalUnicast() || p.host.OnLinkRoutes.Direct(a)
}
