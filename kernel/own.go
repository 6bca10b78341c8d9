package kernel

import (
	"net/netip"
	"strings"
)

// aliasWord begins the alias of every device that this software makes.
const aliasWord = "flanneld"

// alias is the mark on our devices.
func (s Scope) alias() string { return strings.TrimSpace(aliasWord + " " + shortName(s.Instance)) }

// Alias returns the alias of the devices that the daemon with this
// Scope.Instance has made.
func Alias(instance string) string { return Scope{Instance: instance}.alias() }

// marks reports whether an alias is a mark of any instance.
func marks(alias string) bool {
	return alias == aliasWord || strings.HasPrefix(alias, aliasWord+" ")
}

// instanceOf returns the instance that an alias names.
func instanceOf(alias string) string { return strings.TrimSpace(strings.TrimPrefix(alias, aliasWord)) }

// taken reports whether a device belongs to another daemon that runs. The
// devices of a daemon that does not may be taken over: an instance gets
// another name when its flags change.
func (r *reconciler) taken(l link) bool {
	return marks(l.alias) && l.alias != r.scope.alias() && r.edge.alive(instanceOf(l.alias))
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

func within(network, p netip.Prefix) bool {
	return network.Bits() <= p.Bits() && network.Contains(p.Addr())
}
