package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
	"flannel/network"
	"flannel/status"
)

var routes = Check{
	Name: "routes",
	About: "The route to each peer leads over the overlay's device, or directly to the peer. The kernel is asked for one address of each " +
		"peer, and for each route of others inside a peer's subnet.",
	Means: "Packets for pods of that node take another path and are lost. The usual cause is stale routes, rules or tables of another network plugin or a VPN.",
	More:  "troubleshooting.md#a-peer",
	Find: func(f *Facts) []Finding {
		var out []Finding
		peers, egress := f.peerIndex(), f.egress()
		for _, l := range f.Lookups {
			peer, ok := peers.of(l.Dst)
			if !ok || egress.IsRight(peer, l) {
				continue
			}
			var found Finding
			found.Problem, found.Command = status.WrongRoute(peer, l, &f.Host, f.Networks())
			if !slices.Contains(out, found) {
				out = append(out, found)
			}
		}
		return shorten(out)
	},
}

// egress names the devices by which packets for peers may leave this host.
func (f *Facts) egress() status.Egress {
	var e status.Egress
	for _, l := range f.overlays() {
		e.Overlays = append(e.Overlays, l.Name)
	}
	up, _ := f.uplink()
	e.Uplink = up.Name
	return e
}

// peers lists the peers that are in use. Without a daemon they follow from the
// routes that it has left.
func (f *Facts) peers() []status.Target {
	var all []network.Peer
	if s := f.Daemon.Status; s != nil {
		all = s.Peers
	} else {
		all = status.PeersOf(f.Host.Routes, f.Host.Links, f.Backends, f.Networks())
	}
	var out []status.Target
	for _, p := range all {
		if t, ok := status.TargetOf(p); ok {
			out = append(out, t)
		}
	}
	return out
}

// peerIndex finds the peer of an address among thousands.
type peerIndex struct {
	peers map[netip.Prefix]status.Target
	// lengths are those of the prefixes.
	lengths map[int]bool
}

func (f *Facts) peerIndex() peerIndex {
	x := peerIndex{map[netip.Prefix]status.Target{}, map[int]bool{}}
	for _, p := range f.peers() {
		x.peers[p.Subnet], x.lengths[p.Subnet.Bits()] = p, true
	}
	return x
}

func (x peerIndex) of(a netip.Addr) (status.Target, bool) {
	for bits := range x.lengths {
		if prefix, err := a.Prefix(bits); err == nil {
			if p, ok := x.peers[prefix]; ok {
				return p, true
			}
		}
	}
	return status.Target{}, false
}

// Destinations are the addresses for which the kernel is asked: one of each peer, and
// one for each route of others inside a peer's subnet.
func (f *Facts) Destinations() []netip.Addr {
	var out []netip.Addr
	peers := f.peers()
	for _, p := range peers {
		out = append(out, p.Pod())
	}
	for _, r := range f.Host.Routes {
		inside := func(p status.Target) bool { return p.Subnet.Bits() < r.Dst.Bits() && p.Subnet.Contains(r.Dst.Addr()) }
		if !r.IsOurs() && slices.ContainsFunc(peers, inside) {
			out = append(out, r.Dst.Addr())
		}
	}
	return out
}

// most bounds the findings of one check: they have one cause.
const most = 10

func shorten(list []Finding) []Finding {
	if len(list) <= most {
		return list
	}
	rest := Finding{Problem: fmt.Sprintf("%d more of this kind", len(list)-most), Command: "flanneld doctor, once these are fixed"}
	return append(list[:most:most], rest)
}

// Inside reports whether a route matters: it leads somewhere inside the overlay
// networks, or to all of one.
func (f *Facts) Inside(dst netip.Prefix) bool {
	return slices.ContainsFunc(f.Networks(), func(n netip.Prefix) bool {
		return ipfam.Of(n.Addr()) == ipfam.Of(dst.Addr()) && dst.Bits() > 0 && n.Overlaps(dst)
	})
}
