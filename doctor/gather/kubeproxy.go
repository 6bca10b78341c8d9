package gather

import (
	"slices"

	"github.com/google/nftables"

	"flannel/internal/firewall"
	"flannel/internal/ipfam"
	"flannel/kernel"
)

// kubeProxy looks for what kube-proxy makes in each of its modes. What cannot be read
// has none; filters notes why.
func (g gatherer) kubeProxy() bool {
	const chain, table, device = "KUBE-SERVICES", "kube-proxy", "kube-ipvs0"
	if slices.ContainsFunc(g.facts.Host.Links, func(l kernel.Link) bool { return l.Name == device }) {
		return true
	}
	for _, family := range ipfam.All() {
		if nat, err := firewall.ReadLegacy(family, "nat"); err == nil && nat.Has(chain) {
			return true
		}
	}
	conn, err := nftables.New()
	if err != nil {
		return false
	}
	chains, _ := conn.ListChains()
	return slices.ContainsFunc(chains, func(c *nftables.Chain) bool { return c.Name == chain || c.Table.Name == table })
}
