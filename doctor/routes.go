package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/kernel/look"
)

var routes = Check{
	Name: "routes",
	About: "The route to each peer leads over the overlay's device, or directly to the peer. The kernel is asked for one address of each " +
		"peer, and for each route of others inside a peer's subnet.",
	Means: "Packets for pods of that node take another path and are lost. The usual cause is stale routes, rules or tables of another network plugin or a VPN.",
	More:  "troubleshooting.md#a-peer",
	Find: func(f *Facts) []Finding {
		var out []Finding
		peers := f.peerIndex()
		for _, l := range f.Lookups {
			peer, ok := peers.of(l.Dst)
			if !ok {
				continue
			}
			if found, bad := f.astray(peer, l); bad && !slices.Contains(out, found) {
				out = append(out, found)
			}
		}
		return shorten(out)
	},
}

// peer is where packets for a subnet should go.
type peer struct {
	name   string
	subnet netip.Prefix
	// direct is set if the peer is reached without a tunnel, at via.
	direct bool
	via    netip.Addr
}

// peers lists the peers that are in use. Without a daemon they follow from the
// routes that it has left.
func (f *Facts) peers() []peer {
	var out []peer
	if s := f.Daemon.Status; s != nil {
		for _, p := range s.Peers {
			subnet, err := netip.ParsePrefix(p.Subnet)
			how := backend.How(p.How)
			if err != nil || how != backend.Tunnel && how != backend.Direct {
				continue
			}
			via, _ := netip.ParseAddr(p.Via)
			out = append(out, peer{p.Name, subnet, how == backend.Direct, via})
		}
		return out
	}
	for _, r := range f.Routes {
		if !r.IsOurs() || r.Type != "" || slices.Contains(f.Networks(), r.Dst) {
			continue
		}
		l, _ := f.Links.ByName(r.Dev)
		out = append(out, peer{subnet: r.Dst, direct: !f.Backends.IsOverlay(l), via: r.Via})
	}
	return out
}

// peerIndex finds the peer of an address among thousands.
type peerIndex struct {
	peers map[netip.Prefix]peer
	// lengths are those of the prefixes.
	lengths map[int]bool
}

func (f *Facts) peerIndex() peerIndex {
	x := peerIndex{map[netip.Prefix]peer{}, map[int]bool{}}
	for _, p := range f.peers() {
		x.peers[p.subnet], x.lengths[p.subnet.Bits()] = p, true
	}
	return x
}

func (x peerIndex) of(a netip.Addr) (peer, bool) {
	for bits := range x.lengths {
		if prefix, err := a.Prefix(bits); err == nil {
			if p, ok := x.peers[prefix]; ok {
				return p, true
			}
		}
	}
	return peer{}, false
}

// firstPod is the first address that a pod can have.
func (p peer) firstPod() netip.Addr { return p.subnet.Addr().Next().Next() }

// String names the peer for people.
func (p peer) String() string {
	switch {
	case p.name == "" && !p.via.IsValid():
		return p.subnet.String()
	case p.name == "" || strings.Contains(p.name, p.subnet.Addr().String()): // with etcd
		return fmt.Sprintf("%s (at %s)", p.subnet, p.via)
	}
	return fmt.Sprintf("%s (%s)", p.subnet, p.name)
}

// Destinations are the addresses for which the kernel is asked: one of each peer, and
// one for each route of others inside a peer's subnet.
func (f *Facts) Destinations() []netip.Addr {
	var out []netip.Addr
	peers := f.peers()
	for _, p := range peers {
		out = append(out, p.firstPod())
	}
	for _, r := range f.Routes {
		inside := func(p peer) bool { return p.subnet.Bits() < r.Dst.Bits() && p.subnet.Contains(r.Dst.Addr()) }
		if !r.IsOurs() && slices.ContainsFunc(peers, inside) {
			out = append(out, r.Dst.Addr())
		}
	}
	return out
}

// astray reports whether a packet for a peer does not take the right way.
func (f *Facts) astray(p peer, l Lookup) (Finding, bool) {
	r := l.Route
	if l.Err != nil {
		return f.noWay(p, l), true
	}
	dev, _ := f.Links.ByName(r.Dev)
	up, known := f.uplink()
	right := slices.ContainsFunc(f.overlays(), func(l kernel.Link) bool { return l.Name == dev.Name })
	if p.direct {
		right = r.IsOurs() || !known || dev.Index == up.Index && (r.Via == p.via || !r.Via.IsValid())
	}
	if right {
		return Finding{}, false
	}
	main := r.Table == unix.RT_TABLE_MAIN || r.Table == 0
	switch {
	case r.Protocol == unix.RTPROT_KERNEL:
		return f.connected(p, r), true
	case main && r.Dst.Bits() < p.subnet.Bits() && r.Protocol != kernel.RouteProtocol:
		// A host's default route must stay.
		return Finding{Problem: fmt.Sprintf("flanneld's route to %s is missing: packets take %s", p, r), Command: logs}, true
	}
	return Finding{
		Problem: fmt.Sprintf("packets for %s take a route of others: %s", p, r),
		Command: fmt.Sprintf("ip route del %s%s", r, f.ruleFor(r.Table)),
	}, true
}

// connected explains a route that the kernel makes for an address of this host. It
// goes with the address; to delete it alone would cut off that network.
func (f *Facts) connected(p peer, r look.Route) Finding {
	found := Finding{
		Problem: fmt.Sprintf("packets for %s go to the network %s of %s, which overlaps the overlay network %s", p, r.Dst, r.Dev, joined(f.Networks())),
		Command: fmt.Sprintf("ip address show dev %s; give it an address outside of the overlay network, or choose another Network", shell(r.Dev)),
	}
	for _, a := range f.Addrs {
		if a.Dev == r.Dev && a.Addr.Masked() == r.Dst {
			found.Problem = fmt.Sprintf("packets for %s go to %s: its address %s overlaps the overlay network %s", p, r.Dev, a.Addr, joined(f.Networks()))
		}
	}
	return found
}

// noWay explains why a lookup ended without a route.
func (f *Facts) noWay(p peer, l Lookup) Finding {
	for _, r := range f.Routes {
		if r.Type != "" && r.Dst.Contains(l.Dst) && refuses[r.Type] != nil && errors.Is(l.Err, refuses[r.Type]) {
			return Finding{
				Problem: fmt.Sprintf("packets for %s are dropped by a route: %s", p, r),
				Command: fmt.Sprintf("ip route del %s", r),
			}
		}
	}
	return Finding{
		Problem: fmt.Sprintf("there is no route for %s: %v", p, l.Err),
		Command: fmt.Sprintf("ip route get %s; ip rule", l.Dst),
	}
}

// refuses are the errors with which the kernel answers for routes that drop.
var refuses = map[string]error{"blackhole": unix.EINVAL, "unreachable": unix.EHOSTUNREACH, "prohibit": unix.EACCES}

// ruleFor returns what to look at if the route is in a table that a rule chose.
func (f *Facts) ruleFor(table int) string {
	if table == unix.RT_TABLE_MAIN || table == 0 {
		return ""
	}
	return fmt.Sprintf("; or delete the rule that leads to table %d: ip rule | grep 'lookup %d'", table, table)
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
