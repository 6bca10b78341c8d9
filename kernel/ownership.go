package kernel

import (
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
)

// aliasWord begins the alias of every device that this software makes.
const aliasWord = "flanneld"

// alias is the mark on our devices.
func (s Scope) alias() string { return strings.TrimSpace(aliasWord + " " + shortName(s.Instance)) }

// Alias returns the alias of the devices that the daemon with this
// Scope.Instance has made.
func Alias(instance string) string { return Scope{Instance: instance}.alias() }

// Marked reports whether the alias of a device shows that this software has made
// it, whichever instance.
func Marked(alias string) bool {
	return alias == aliasWord || strings.HasPrefix(alias, aliasWord+" ")
}

// belongsToOther reports whether a device belongs to another daemon that runs.
// The devices of a daemon that does not may be taken over: an instance gets
// another name if its flags change.
func (r *Reconciler) belongsToOther(l Link) bool {
	instance := strings.TrimSpace(strings.TrimPrefix(l.Alias, aliasWord))
	return Marked(l.Alias) && l.Alias != r.scope.alias() && r.backing.Alive(instance)
}

// inside reports whether a destination lies in one of our networks.
func (s Scope) inside(dst netip.Prefix) bool { return ipfam.WithinAny(s.Networks, dst) }

// mayPrecede reports whether a route of this key that is not ours can win
// against one to a peer: by a lower metric, in front of it, or for the packets
// that have its TOS.
func (s Scope) mayPrecede(k RouteKey) bool {
	return (k.Metric <= peerKey(k.Dst).Metric || k.TOS != 0) && s.inside(k.Dst)
}

// families are those of our networks.
func (s Scope) families() (has ipfam.Pair[bool]) {
	for _, n := range s.Networks {
		has[ipfam.Of(n.Addr())] = true
	}
	return has
}

func hasIndex(links []Link, index int) bool {
	for i := range links {
		if links[i].Index == index {
			return true
		}
	}
	return false
}

// isOurs reports whether a route is ours: it has our protocol number, and is on
// a device of ours or inside our networks; or it is flannel's on our device.
func (r *Reconciler) isOurs(k RouteKey, v RouteValue) bool {
	if v.Protocol != RouteProtocol {
		return r.isFlannels(k, v)
	}
	return hasIndex(r.owned, v.Dev) || hasIndex(r.former, v.Dev) || r.scope.inside(k.Dst)
}

// isFlannels reports whether an unmarked route has the shape that only flannel
// gives it: on a vxlan device of ours, inside the network, with the network
// address of the destination as gateway.
func (r *Reconciler) isFlannels(k RouteKey, v RouteValue) bool {
	if !v.unmarked() || k.TOS != 0 || !v.OnLink || v.Via != k.Dst.Addr() || !r.scope.inside(k.Dst) {
		return false
	}
	for _, links := range [][]Link{r.owned, r.former} {
		for i := range links {
			if links[i].Index == v.Dev && links[i].Kind == KindVXLAN {
				return true
			}
		}
	}
	return false
}

// isOurAddr reports whether an address is on a device of ours and ours to
// remove if nobody wants it: it is of a family in which the device should have
// one, and not link-local, because the kernel makes those by itself.
func (p *pass) isOurAddr(k AddrKey) bool {
	a := k.Prefix.Addr()
	for _, l := range p.r.owned {
		if l.Index != k.Dev || a.IsLinkLocalUnicast() {
			continue
		}
		for _, d := range deviceAddrs(p.want) {
			if d.dev == l.Name && d.addr.Addr().Is4() == a.Is4() {
				return true
			}
		}
	}
	return false
}

// Adoption: flannel does not mark its routes. Those that nobody else makes are
// recognised by their shape, always; see isFlannels. Whether another unmarked
// route is flannel's or the user's is a decision, not knowledge. It is made once,
// when the daemon first looks at the kernel, and only if nothing shows that this
// software has run on the host before. The routes that may be adopted are those
// of that moment; a pass then adopts those of them that are over our devices or
// described by Scope.Adopt. After the first complete pass, and on every later
// start, no such route is touched, unless it is over our device and in the way
// of a route that is wanted.

// decideAdoption decides, once, which unmarked routes may be adopted. None may
// if there are routes of our protocol.
func (r *Reconciler) decideAdoption() error {
	switch {
	case r.adoptable != nil:
		return nil
	case r.ranBefore():
		r.adoptable = map[RouteKey]RouteValue{}
		return nil
	}
	tunnels := make(map[int]bool)
	for _, l := range r.links {
		tunnels[l.Index] = l.Kind == KindVXLAN
	}
	marked := false
	found, err := collect(r.backing.Routes, Selection{Unmarked: true}, 0, func(k RouteKey, v RouteValue) bool {
		marked = marked || v.Protocol == RouteProtocol
		return v.unmarked() && k.TOS == 0 && (tunnels[v.Dev] || r.scope.inside(k.Dst))
	})
	if err != nil {
		return err
	}
	if marked {
		clear(found)
	}
	r.adoptable = found
	return nil
}

// ranBefore reports whether this software has run here, as far as is known
// without looking at routes.
func (r *Reconciler) ranBefore() bool {
	if r.scope.Known {
		return true
	}
	for _, l := range r.links {
		if Marked(l.Alias) {
			return true
		}
	}
	return false
}

// adopts reports whether a route is to be adopted.
func (r *Reconciler) adopts(k RouteKey, v RouteValue) bool {
	if was, ok := r.adoptable[k]; !ok || was != v {
		return false
	}
	if hasIndex(r.owned, v.Dev) {
		return true
	}
	for _, a := range r.scope.Adopt {
		if ipfam.Within(a.Network, k.Dst) && k.Dst.Bits() == a.Bits && v.Via.IsValid() && !v.OnLink && v.Dev == r.links[a.Dev].Index {
			return true
		}
	}
	return false
}

// unmarked reports whether flannel may have made the route: protocol boot, one
// next hop.
func (v RouteValue) unmarked() bool {
	return v.Protocol == unix.RTPROT_BOOT && !v.Blackhole && !v.Other
}
