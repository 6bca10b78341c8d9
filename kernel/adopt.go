package kernel

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Adoption: flannel does not mark its routes. Those that no one else makes are
// recognised by their shape, always; see madeByFlannel. Whether another unmarked
// route is its route or the user's is a decision, not knowledge. It is made once,
// when the daemon first looks at the kernel, and only where nothing shows that
// this software has run on the host before. The routes that may be taken over are
// those of that moment; a pass then takes those of them that are over our
// devices or described by Scope.Adopt. After the first complete pass, and on
// every later start, no such route is touched, unless it is over our device
// and in the way of a route that is wanted.

// decideAdoption decides, once, which unmarked routes may be taken over.
func (r *reconciler) decideAdoption() error {
	if r.adoptKnown {
		return nil
	}
	var left map[routeKey]routeValue
	if !r.ranBefore() {
		var err error
		if left, err = r.leftByFlannel(); err != nil {
			return err
		}
	}
	r.left, r.adoptKnown = left, true
	return nil
}

// ranBefore reports whether this software has run here, as far as is known
// without looking at routes.
func (r *reconciler) ranBefore() bool {
	if r.scope.Known {
		return true
	}
	for _, l := range r.links {
		if marks(l.alias) {
			return true
		}
	}
	return false
}

// leftByFlannel lists the routes that flannel may have made; none when there
// are routes of our protocol.
func (r *reconciler) leftByFlannel() (map[routeKey]routeValue, error) {
	tunnels := make(map[int]bool)
	for _, l := range r.links {
		tunnels[l.index] = l.kind == kindVXLAN
	}
	marked := false
	found, err := collect(r.edge.routes, selection{unmarked: true}, 0, func(k routeKey, v routeValue) bool {
		marked = marked || v.protocol == RouteProtocol
		return v.unmarked() && (tunnels[v.dev] || r.scope.inside(k.dst))
	})
	if marked {
		return nil, err
	}
	return found, err
}

// madeByFlannel reports whether an unmarked route has the shape that only flannel
// gives it: on a vxlan device of ours, inside the network, with the network
// address of the destination as gateway.
func (r *reconciler) madeByFlannel(k routeKey, v routeValue) bool {
	if !v.unmarked() || !v.onLink || v.via != k.dst.Addr() || !r.scope.inside(k.dst) {
		return false
	}
	ours := func(l link) bool { return l.index == v.dev && l.kind == kindVXLAN }
	return slices.ContainsFunc(r.owned, ours) || slices.ContainsFunc(r.former, ours)
}

// adopting reports whether there may be routes to take over.
func (r *reconciler) adopting() bool { return len(r.left) > 0 }

// adoptable reports whether a route is to be taken over.
func (r *reconciler) adoptable(k routeKey, v routeValue) bool {
	if was, ok := r.left[k]; !ok || was != v {
		return false
	}
	return hasIndex(r.owned, v.dev) || r.scope.adopts(k, v, func(name string) int { return r.links[name].index })
}

// adopts reports whether a route is one of those that flannel makes on the
// uplink. index finds a device by name.
func (s Scope) adopts(k routeKey, v routeValue, index func(string) int) bool {
	for _, a := range s.Adopt {
		if within(a.Network, k.dst) && k.dst.Bits() == a.Bits && v.via.IsValid() && !v.onLink && v.dev == index(a.Dev) {
			return true
		}
	}
	return false
}

// unmarked reports whether flannel may have made the route: protocol boot, one
// next hop.
func (v routeValue) unmarked() bool {
	return v.protocol == unix.RTPROT_BOOT && !v.blackhole && !v.other
}
