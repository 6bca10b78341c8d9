package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/printable"
	"flannel/kernel"
	"flannel/network"
)

var publicAddress = Check{
	Name: "public-address",
	About: "This node's public addresses are on an interface by which other nodes can reach it, and not on that of a VPN (`wg…`, `tun…`, `tailscale…`, `ppp…`) while " +
		"another interface has the Node's InternalIP, unless a flag chose it or peers answer. With `-v`, also: they are on the uplink, on this host at all (not behind a NAT), and among the InternalIPs of the Node.",
	Means: "Other nodes send the packets for pods of this node to this address.",
	More:  "configuration.md",
	Find: func(f *Facts) []Finding {
		var out []Finding
		s := f.Daemon.Status
		if s == nil {
			return nil
		}
		for _, a := range s.Lease.PublicIP {
			out = append(out, f.publicOn(a)...)
			out = append(out, f.publicAndNode(a)...)
		}
		return out
	},
}

// publicOn looks at the interface that has a public address.
func (f *Facts) publicOn(a netip.Addr) []Finding {
	const correct = "set --iface or --public-ip to an address of the interface that other nodes reach, then restart flanneld"
	up := f.Daemon.Status.Uplink
	i := slices.IndexFunc(f.Host.Addrs, func(h kernel.HostAddr) bool { return h.Addr.Addr() == a })
	if i < 0 {
		return []Finding{{
			Problem: fmt.Sprintf("no interface of this host has the public address %s: something must translate it to %s", a, joined(up.Addr)),
			Command: "flanneld status NODE, on another node", Note: true,
		}}
	}
	dev, _ := f.Host.Links.ByName(f.Host.Addrs[i].Dev)
	inner := f.Backends.IsOverlay(dev) || dev.Name == "kube-ipvs0" || dev.Name == "docker0" ||
		slices.ContainsFunc(f.bridges(), func(l kernel.Link) bool { return l.Index == dev.Index })
	switch {
	case dev.Name == up.Name && dev.Up:
		return nil
	case inner:
		return []Finding{{Problem: fmt.Sprintf("the public address %s is on %s, which other nodes do not reach", a, dev.Name), Command: correct}}
	case !dev.Up:
		return []Finding{{Problem: fmt.Sprintf("the public address %s is on %s, which is down", a, dev.Name), Command: "ip link set " + printable.Word(dev.Name) + " up"}}
	}
	return []Finding{{Problem: fmt.Sprintf("the public address %s is on %s, but the uplink is %s", a, dev.Name, up.Name), Command: correct, Note: true}}
}

// vpns are the names that VPNs give their interfaces, by their first letters.
var vpns = []string{"wg", "tun", "tailscale", "ppp", "zt", "nebula"}

// vpnInstead reports whether a public address is on a VPN's interface while another
// interface, which is up, has an address that the Node has.
func (f *Facts) vpnInstead(public netip.Addr, node []netip.Addr) (vpn, other string, ok bool) {
	on := func(a netip.Addr) kernel.Link {
		i := slices.IndexFunc(f.Host.Addrs, func(h kernel.HostAddr) bool { return h.Addr.Addr() == a })
		if i < 0 {
			return kernel.Link{}
		}
		l, _ := f.Host.Links.ByName(f.Host.Addrs[i].Dev)
		return l
	}
	dev := on(public)
	isVPN := dev.Kind == "wireguard" || dev.Kind == "ppp" || startsWithAny(dev.Name, vpns)
	for _, a := range node {
		if l := on(a); isVPN && l.Up && l.Index != dev.Index && !startsWithAny(l.Name, vpns) {
			return dev.Name, l.Name, true
		}
	}
	return "", "", false
}

// isChosen reports whether somebody wants this uplink, or peers are reached by it.
func (f *Facts) isChosen() bool {
	s := f.Daemon.Status
	return strings.HasPrefix(s.Uplink.Why, "--") || slices.ContainsFunc(s.Peers, func(p network.Peer) bool {
		return p.Probe != nil && p.Probe.Verdict == backend.Fine
	})
}

// publicAndNode compares with the addresses that Kubernetes knows. They may differ:
// --iface may choose a faster network than the kubelet's.
func (f *Facts) publicAndNode(a netip.Addr) []Finding {
	var same []netip.Addr
	if f.Store != nil {
		for _, o := range f.Store.InternalIPs {
			if ipfam.Of(o) == ipfam.Of(a) {
				same = append(same, o)
			}
		}
	}
	if len(same) == 0 || slices.Contains(same, a) {
		return nil
	}
	if dev, other, ok := f.vpnInstead(a, same); ok {
		return []Finding{{
			Problem: fmt.Sprintf("the public address %s is on %s, a VPN, but the Node's InternalIP %s is on %s", a, dev, joined(same), other),
			// Names of interfaces differ, and a node has no route to its own address.
			Command: "add --iface-can-reach=ADDRESS to the arguments of flanneld on all nodes, with an address of the InternalIPs' network that no node has, such as the gateway's; then: " + restart,
			Note:    f.isChosen(),
		}}
	}
	return []Finding{{
		Problem: fmt.Sprintf("the public address is %s, but the Node has the InternalIP %s", a, joined(same)),
		Command: "kubectl get node -o wide; set --iface or --public-ip, or the kubelet's --node-ip, if one of them is wrong", Note: true,
	}}
}

// joined lists addresses or networks.
func joined[T fmt.Stringer](list []T) string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}
