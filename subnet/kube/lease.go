package kube

import (
	"fmt"
	"net/netip"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// subnets reads the subnets that the cluster gave to a node, in the families
// that are enabled.
func subnets(n *Node, families ipfam.Pair[bool]) (ipfam.Pair[netip.Prefix], error) {
	var out ipfam.Pair[netip.Prefix]
	texts := n.podCIDRs()
	if len(texts) > 2 {
		return out, fmt.Errorf("%d pod CIDRs, at most one per family is allowed", len(texts))
	}
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() {
			return out, fmt.Errorf("pod CIDR %q is not a subnet", cut(text))
		}
		f := ipfam.Of(p.Addr())
		if out[f].IsValid() {
			return out, fmt.Errorf("two %s pod CIDRs", f)
		}
		if families[f] {
			out[f] = p.Masked()
		}
	}
	return out, nil
}

// decodeLease returns the lease that a Node stands for. It reports false for a
// Node that takes no part.
func decodeLease(n *Node, keys *annotations, families ipfam.Pair[bool]) (subnet.Lease, bool) {
	if n.Annotations[keys.managed] != "true" {
		return subnet.Lease{}, false
	}
	l := subnet.Lease{Name: n.Name, Precedence: precedence(n)}
	var err error
	if l.Subnet, err = subnets(n, families); err != nil {
		l.Invalid = err.Error()
		return l, true
	}
	if l.Subnet == (ipfam.Pair[netip.Prefix]{}) {
		l.Invalid = "no pod CIDR in a family that is on"
	}
	if l.Attrs, err = keys.decode(n.Annotations, families); err != nil {
		l.Invalid = err.Error()
	}
	return l, true
}

func precedence(n *Node) subnet.Precedence {
	return subnet.Precedence{Age: n.CreationTimestamp.UnixNano(), Name: n.Name}
}

// ownSubnets returns the subnets of this node. An error contains what is missing or
// wrong, and how to correct it.
func ownSubnets(n *Node, network ipfam.Pair[netip.Prefix]) (ipfam.Pair[netip.Prefix], error) {
	have, err := subnets(n, ipfam.Enabled(network))
	if err != nil {
		return have, &causeError{reason: "BadPodCIDR", text: fmt.Sprintf("Node %q: %v; see: kubectl get node %s -o jsonpath='{.spec.podCIDRs}'", n.Name, err, n.Name)}
	}
	for f, net := range ipfam.Prefixes(network) {
		switch s := have[f]; {
		case !s.IsValid():
			what := "pod CIDR"
			if len(n.podCIDRs()) > 0 {
				what = f.Name() + " " + what
			}
			return have, noPodCIDR(n.Name, what)
		case s.Bits() < net.Bits() || !net.Contains(s.Addr()):
			return have, &causeError{reason: "PodCIDROutsideNetwork", text: fmt.Sprintf("pod CIDR %s of Node %q is outside the %s %s: "+
				"make %s in the network configuration the --cluster-cidr of the controller manager; "+
				"see: kubectl get node %s -o jsonpath='{.spec.podCIDRs}'",
				s, n.Name, networkKey[f], net, networkKey[f], n.Name)}
		}
	}
	return have, nil
}

// servedNetwork returns the networks in which a Node has pod CIDRs. An error means
// that it has none, or one that cannot be used.
func servedNetwork(n *Node, network ipfam.Pair[netip.Prefix]) (ipfam.Pair[netip.Prefix], error) {
	served := network
	have, err := subnets(n, ipfam.Enabled(network))
	if err == nil && have != (ipfam.Pair[netip.Prefix]{}) {
		for f, s := range have.Each() {
			if !s.IsValid() {
				served[f] = netip.Prefix{}
			}
		}
	}
	_, err = ownSubnets(n, served)
	return served, err
}

// missingFamily returns an error that names the family of a dual-stack network
// in which a node has no pod CIDR, nil if it has both.
func missingFamily(name string, served ipfam.Pair[netip.Prefix]) error {
	for f, on := range ipfam.Enabled(served).Each() {
		if !on {
			return noPodCIDR(name, f.Name()+" pod CIDR, and runs without "+f.Name())
		}
	}
	return nil
}

// networkKey is the key of the network configuration that holds the network.
var networkKey = ipfam.Pair[string]{"Network", "IPv6Network"}

func noPodCIDR(name, what string) error {
	return &causeError{reason: "NoPodCIDR", text: fmt.Sprintf("Node %q has no %s: give the cluster one with kubeadm init --pod-network-cidr, "+
		"or the controller manager --allocate-node-cidrs and --cluster-cidr; "+
		"see: kubectl get node %s -o jsonpath='{.spec.podCIDRs}'", name, what, name)}
}
