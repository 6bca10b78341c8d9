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
func (b *Backend) Plan(_ subnet.Lease, peers []subnet.Lease, v backend.View) (kernel.State, []backend.PeerStatus, error) {
	if err := b.CheckUplink(v.Uplink); err != nil {
		return kernel.State{}, nil, err
	}
	p := planner{view: v, direct: "on the link of " + v.Uplink.Name}
	for f, on := range b.env.Families.Each() {
		if on {
			p.family(f, peers)
		}
	}
	return p.state, p.status, nil
}

// planner collects the plan of one pass.
type planner struct {
	view   backend.View
	direct string // why a peer is reached
	state  kernel.State
	status []backend.PeerStatus
}

func (p *planner) family(f ipfam.Family, peers []subnet.Lease) {
	p.state.Routes = slices.Grow(p.state.Routes, len(peers))
	p.status = slices.Grow(p.status, len(peers))
	for _, l := range peers {
		if !l.Subnet[f].IsValid() {
			continue
		}
		s := backend.PeerStatus{Name: l.Name, Family: f, Subnet: l.Subnet[f], Via: l.Attrs.PublicIP[f]}
		s.How, s.Why = p.judge(f, l)
		if s.How == backend.Direct {
			p.state.Routes = append(p.state.Routes, kernel.Route{Dst: s.Subnet, Via: s.Via, Dev: p.view.Uplink.Name})
		}
		p.status = append(p.status, s)
	}
}

// judge says how a peer is reached in one family, and why so.
func (p *planner) judge(f ipfam.Family, l subnet.Lease) (backend.How, string) {
	if why := backend.Unusable(f, &l, Type); why != "" {
		return backend.LeftOut, why
	}
	public := l.Attrs.PublicIP[f]
	if !p.onLink(public) {
		return backend.Unreachable, fmt.Sprintf("%s is not on the link of %s; `ip route get %s` shows the way that this host has",
			public, p.view.Uplink.Name, public)
	}
	return backend.Direct, p.direct
}

// onLink reports whether an address is a neighbour's. Link-local IPv6 addresses
// always are; routes say nothing of them.
func (p *planner) onLink(a netip.Addr) bool {
	return a.Is6() && a.IsLinkLocalUnicast() || p.view.Links.Direct(a)
}
