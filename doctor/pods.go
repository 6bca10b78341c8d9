package doctor

import (
	"fmt"
	"net/netip"

	"flannel/internal/ipfam"
	"flannel/internal/printable"
	"flannel/kernel/look"
)

// Pod is a network namespace with an address of this node's subnet.
type Pod struct {
	// Namespace is the file of the namespace.
	Namespace string
	Addr      netip.Addr
	// Dev has the address.
	Dev string
	// Route is the way to Dst, a pod of a peer; Err is why there is none.
	Dst   netip.Addr
	Route look.Route
	Err   error
}

var pods = Check{
	Name: "pods",
	About: "Each pod has a route to the pods of other nodes, over the interface that has its address of this node's subnet. Only doctor on the host, as root, can look at " +
		"this, not in a pod.",
	Means: "The pod and pods of other nodes do not reach each other, although the host does. The command lasts as long as the pod; new pods get a route if the delegate in " +
		"flannel's network configuration has `isDefaultGateway: true`.",
	More: "cni.md",
	Find: func(f *Facts) []Finding {
		var out []Finding
		for _, p := range f.Pods {
			if p.Err == nil && p.Route.Dev == p.Dev {
				continue
			}
			found := Finding{Problem: fmt.Sprintf("the pod %s has no route to pods of other nodes, such as %s: %v", p.Addr, p.Dst, p.Err)}
			if p.Err == nil {
				found.Problem = fmt.Sprintf("the pod %s sends packets for pods of other nodes, such as %s, over %s and not over %s: %s", p.Addr, p.Dst, p.Route.Dev, p.Dev, p.Route)
			}
			for _, n := range f.Networks() {
				if n.Contains(p.Dst) {
					gateway := f.SubnetFile.Env.Subnet[ipfam.Of(p.Addr)].Addr()
					found.Command = fmt.Sprintf("nsenter --net=%s ip route replace %s via %s dev %s", printable.Word(p.Namespace), n, gateway, printable.Word(p.Dev))
				}
			}
			out = append(out, found)
		}
		return shorten(out)
	},
}

// OtherPod returns an address that a pod of a peer can have; invalid without a peer.
func (f *Facts) OtherPod(family ipfam.Family) netip.Addr {
	for _, p := range f.peers() {
		if ipfam.Of(p.Subnet.Addr()) == family {
			return p.Pod()
		}
	}
	return netip.Addr{}
}
