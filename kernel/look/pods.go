package look

import (
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
	"flannel/kernel"
)

// Bridges returns the bridges that have an address in this node's subnet: those of
// the pods or of Docker's containers.
func (h Host) Bridges(own ipfam.Pair[netip.Prefix]) []kernel.Link {
	var out []kernel.Link
	for _, l := range h.Links {
		inside := func(a kernel.HostAddr) bool {
			return a.Dev == l.Name && own[ipfam.Of(a.Addr.Addr())].Contains(a.Addr.Addr())
		}
		if l.Kind == "bridge" && slices.ContainsFunc(h.Addrs, inside) {
			out = append(out, l)
		}
	}
	return out
}

// PodSource returns the address of this host in the pods' subnet of a family, if it has
// one. Packets from there are routed like those of pods: rules may look at where they
// come from.
func (h Host) PodSource(own ipfam.Pair[netip.Prefix], f ipfam.Family) netip.Addr {
	for _, l := range h.Bridges(own) {
		for _, a := range h.Addrs {
			if a.Dev == l.Name && own[f].Contains(a.Addr.Addr()) {
				return a.Addr.Addr()
			}
		}
	}
	return netip.Addr{}
}

// PodDevices are those by which packets of pods come in: bridges, or some of those that
// routes inside this node's subnet lead over. Devices of an overlay are none.
func (h Host) PodDevices(own ipfam.Pair[netip.Prefix], isOverlay func(kernel.Link) bool) []kernel.Link {
	const sample = 3
	out := h.Bridges(own)
	for _, r := range h.Routes {
		l, ok := h.Links.ByName(r.Dev)
		subnet := own[ipfam.Of(r.Dst.Addr())]
		inside := ok && subnet.IsValid() && subnet.Bits() <= r.Dst.Bits() && subnet.Contains(r.Dst.Addr())
		same := func(o kernel.Link) bool { return o.Index == l.Index }
		if inside && len(out) < sample && !isOverlay(l) && !slices.ContainsFunc(out, same) {
			out = append(out, l)
		}
	}
	return out
}
