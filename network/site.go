package network

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/kernel/podbridge"
	"flannel/subnet"
)

// readSite reads the addresses of this host, which decide which records may be used:
// at the start, with each resync and when the uplink changes. If they cannot be
// read, the former ones stay; before the first time only the configuration is
// known, and the next pass reads again.
func (p *passState) readSite(ctx context.Context, up backend.Uplink) {
	if p.siteKnown && p.site.uplink == up {
		return
	}
	host, err := p.n.kernel.Host(ctx)
	p.failures.Fail("reading the addresses of this host", err)
	if err != nil && p.site.validation.Network == p.n.config.Network {
		return
	}
	p.siteKnown = err == nil
	p.site = newSite(p.n.config, p.n.Backends, host, up, p.n.Manager.StoreAddrs())
}

// site is what a pass knows of this host.
type site struct {
	// validation is what the validator of the leases knows.
	validation subnet.Site
	uplink     backend.Uplink
	// onLink are the networks of the uplink.
	onLink []netip.Prefix
}

func newSite(c *subnet.Config, backends backend.Table, host kernel.Host, up backend.Uplink, store []netip.Addr) site {
	s := site{uplink: up}
	s.validation.Network, s.validation.Bits = c.Network, c.SubnetLen
	for _, a := range host.Addrs {
		if a.Dev != servicesDevice || c.BackendType == subnet.DefaultBackend {
			s.validation.Local = append(s.validation.Local, a.Addr.Addr())
		}
		if !podBridges[a.Dev] && !backends.IsOverlayName(a.Dev) {
			s.reserve(a.Addr.Addr(), "the address %s of "+a.Dev)
		}
		if a.Dev == up.Name {
			s.onLink = append(s.onLink, a.Addr.Masked())
		}
	}
	for _, a := range host.Gateways {
		s.reserve(a, "the default gateway %s")
	}
	for _, a := range store {
		s.reserve(a, "the address %s of the store")
	}
	slices.SortFunc(s.validation.Local, netip.Addr.Compare)
	slices.SortFunc(s.validation.Reserved, func(a, b subnet.Reserved) int {
		return cmp.Or(a.Addr.Compare(b.Addr), strings.Compare(a.What, b.What))
	})
	return s
}

// servicesDevice is where kube-proxy in IPVS mode puts the addresses of Services.
// The external address of a Service may be that of a node, which routes over the
// uplink reach all the same; but udp would send to itself.
const servicesDevice = "kube-ipvs0"

// podBridges may have addresses that lie in the subnet of another node: they keep
// those of an earlier one. So do the overlay's devices until a pass.
var podBridges = map[string]bool{podbridge.Name: true, "docker0": true}

// reserve adds an address, if a subnet can hold it at all.
func (s *site) reserve(a netip.Addr, what string) {
	if a.IsValid() && s.validation.Network[ipfam.Of(a)].Contains(a) {
		s.validation.Reserved = append(s.validation.Reserved, subnet.Reserved{Addr: a, What: fmt.Sprintf(what, a)})
	}
}

// isOnLink reports whether an address is in a network of the uplink.
func (s *site) isOnLink(a netip.Addr) bool {
	return slices.ContainsFunc(s.onLink, func(p netip.Prefix) bool { return p.Contains(a) })
}
