// Package env is the file subnet.env, from which the CNI plugin and Docker learn
// which subnet this node has.
package env

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flannel/internal/ipfam"
)

// Env is the content of subnet.env.
type Env struct {
	// Network lists the overlay networks. The daemon writes one in each family
	// that is on; a list is read as well.
	Network ipfam.Pair[[]netip.Prefix]
	// Subnet is the node's first usable address with the subnet's prefix
	// length; see Gateway and Masked.
	Subnet ipfam.Pair[netip.Prefix]
	// MTU for pods in bytes.
	MTU int
	// IPMasq is true if the daemon masquerades the pods' traffic.
	IPMasq bool
}

// names of the keys of one family.
type names struct{ network, subnet string }

const (
	keyMTU    = "FLANNEL_MTU"
	keyIPMasq = "FLANNEL_IPMASQ"
)

func keysOf(f ipfam.Family) names {
	return ipfam.Pair[names]{
		{"FLANNEL_NETWORK", "FLANNEL_SUBNET"},
		{"FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET"},
	}[f]
}

// Gateway returns the first usable address of a subnet with its prefix
// length, in the form that Env.Subnet holds.
func Gateway(subnet netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(subnet.Masked().Addr().Next(), subnet.Bits())
}

// Gateways returns Gateway of each family that is there.
func Gateways(subnets ipfam.Pair[netip.Prefix]) ipfam.Pair[netip.Prefix] {
	var p ipfam.Pair[netip.Prefix]
	for f, s := range ipfam.Prefixes(subnets) {
		p[f] = Gateway(s)
	}
	return p
}

// Networks returns the overlay networks of both families.
func (e Env) Networks() []netip.Prefix {
	return slices.Concat(e.Network[ipfam.V4], e.Network[ipfam.V6])
}

// Masked returns the subnets themselves, without host bits.
func (e Env) Masked() ipfam.Pair[netip.Prefix] {
	var p ipfam.Pair[netip.Prefix]
	for f, s := range ipfam.Prefixes(e.Subnet) {
		p[f] = s.Masked()
	}
	return p
}

// String returns the file's text.
func (e Env) String() string {
	var b strings.Builder
	for f, s := range ipfam.Prefixes(e.Subnet) {
		key := keysOf(f)
		fmt.Fprintf(&b, "%s=%s\n%s=%s\n", key.network, joinPrefixes(e.Network[f]), key.subnet, s)
	}
	fmt.Fprintf(&b, "%s=%d\n%s=%t\n", keyMTU, e.MTU, keyIPMasq, e.IPMasq)
	return b.String()
}

func joinPrefixes(list []netip.Prefix) string {
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = p.String()
	}
	return strings.Join(texts, ",")
}
