package network

import (
	"context"
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// Filter keeps the rules of the packet filter that belong to the overlay. Its
// methods but Run never block.
type Filter interface {
	// SetSubnet sets which subnet this node has.
	SetSubnet(ipfam.Pair[netip.Prefix])
	// SetNodes sets which public addresses the nodes of the overlay have.
	SetNodes([]netip.Addr)
	// Run keeps the rules until ctx ends.
	Run(ctx context.Context) error
}

// FilterEnv is what a Filter is built from.
type FilterEnv struct {
	Config *subnet.Config
	// Previous are the overlay networks of an earlier run that are not
	// configured any more.
	Previous ipfam.Pair[[]netip.Prefix]
	// Uplink returns the name of the interface that carries the overlay.
	Uplink func() string
}

// prepareFilter builds what keeps the rules of the packet filter.
func (n *Network) prepareFilter() {
	if n.NewFilter == nil {
		return
	}
	env := FilterEnv{Config: n.config, Uplink: func() string {
		host, _ := n.uplink.Current()
		return host.Uplink.Name
	}}
	for f, list := range n.file.previous.Network.Each() {
		env.Previous[f] = slices.DeleteFunc(slices.Clone(list), func(p netip.Prefix) bool { return p == n.config.Network[f] })
	}
	n.filter = n.NewFilter(env)
}

// filterNodes passes the addresses of the nodes to the filter, if its rules
// depend on them. An address that is not on the uplink's link counts only while a
// single record names it.
func (p *passState) filterNodes(own subnet.Lease, validation subnet.Validation) {
	if p.n.filter == nil || !p.n.config.ExcludeNodes {
		return
	}
	addrs := ipfam.List(own.Attrs.PublicIP)
	for i := range validation.Peers {
		for _, a := range ipfam.Addrs(validation.Peers[i].Attrs.PublicIP) {
			if !validation.Shared[a] || p.site.isOnLink(a) {
				addrs = append(addrs, a)
			}
		}
	}
	p.n.filter.SetNodes(addrs)
}
