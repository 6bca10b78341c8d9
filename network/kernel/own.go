package kernel

import (
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// aliasWord begins the alias of every device that this software makes.
const aliasWord = "flanneld"

// alias is the mark on our devices.
func (s Scope) alias() string { return strings.TrimSpace(aliasWord + " " + s.Instance) }

// Alias returns the alias of the devices that the daemon with this
// Scope.Instance has made.
func Alias(instance string) string { return Scope{Instance: instance}.alias() }

// marks reports whether an alias is a mark of any instance.
func marks(alias string) bool {
	return alias == aliasWord || strings.HasPrefix(alias, aliasWord+" ")
}

// inside reports whether a destination lies in one of our networks.
func (s Scope) inside(dst netip.Prefix) bool {
	for _, n := range s.Networks {
		if within(n, dst) {
			return true
		}
	}
	return false
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

func within(network, p netip.Prefix) bool {
	return network.Bits() <= p.Bits() && network.Contains(p.Addr())
}

// unmarked reports whether flannel may have made the route: protocol boot, one
// next hop.
func (v routeValue) unmarked() bool {
	return v.protocol == unix.RTPROT_BOOT && !v.blackhole && !v.other
}
