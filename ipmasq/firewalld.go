package ipmasq

import (
	"fmt"
	"net/netip"
	"strings"
)

// OfFirewalld reports whether a chain that FORWARD jumps to is firewalld's, in
// whatever packet filter: FORWARD_ZONES, FORWARD_IN_ZONES, filter_FORWARD_ZONES.
func OfFirewalld(chain string) bool {
	return strings.Contains(chain, "FORWARD_") && strings.HasSuffix(chain, "ZONES")
}

// FirewalldCommand returns the command that makes firewalld accept what a network
// sends. A rule beside its own would be lost when it loads them anew.
func FirewalldCommand(network netip.Prefix) string {
	return fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-source=%s && firewall-cmd --reload", network)
}
