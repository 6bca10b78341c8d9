package status

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/printable"
	"flannel/kernel/look"
	"flannel/network"
)

// Target is where packets for the subnet of a peer should go.
type Target struct {
	Name   string
	Subnet netip.Prefix
	// Direct is set if the peer is reached without a tunnel, at Via.
	Direct bool
	Via    netip.Addr
}

// TargetOf returns where packets for a peer should go; false if it is not in use.
func TargetOf(p network.Peer) (Target, bool) {
	subnet, err := netip.ParsePrefix(p.Subnet)
	via, _ := netip.ParseAddr(p.Via)
	return Target{p.Name, subnet, backend.How(p.How) == backend.Direct, via}, err == nil && IsUsed(p)
}

// Pod is the first address that a pod can have.
func (t Target) Pod() netip.Addr { return firstPod(t.Subnet) }

// String names the peer for people.
func (t Target) String() string {
	switch {
	case t.Name == "" && !t.Via.IsValid():
		return t.Subnet.String()
	case t.Name == "" || strings.Contains(t.Name, t.Subnet.Addr().String()): // with etcd
		return fmt.Sprintf("%s (at %s)", t.Subnet, t.Via)
	}
	return fmt.Sprintf("%s (%s)", t.Subnet, t.Name)
}

// Lookup is the kernel's answer to the question which route a packet takes.
type Lookup struct {
	Dst netip.Addr
	// Route is the entry of the table that was chosen; Err is why there is none.
	Route look.Route
	Err   error
}

// Egress names the devices by which packets for peers may leave this host.
type Egress struct {
	Overlays []string
	// Uplink is that of direct routes; empty if it is not known.
	Uplink string
}

// IsRight reports whether a packet for a peer takes the right route.
func (e Egress) IsRight(t Target, l Lookup) bool {
	r := l.Route
	switch {
	case l.Err != nil || r.Type != "":
		return false
	case t.Direct:
		return r.IsOurs() || e.Uplink == "" || r.Dev == e.Uplink && (r.Via == t.Via || !r.Via.IsValid())
	}
	return slices.Contains(e.Overlays, r.Dev)
}

// WrongRoute explains why a packet for a peer does not take the right route, and which
// command helps. Of the host it takes the routes that drop packets, the rules and the
// addresses. A route that is wider than the subnet of the peer has another purpose, and
// stays.
func WrongRoute(t Target, l Lookup, h *look.Host, networks []netip.Prefix) (problem, command string) {
	r := l.Route
	if l.Err != nil {
		var ok bool
		if r, ok = l.refused(h.Routes); !ok {
			return fmt.Sprintf("there is no route for %s: %v", t, l.Err), fmt.Sprintf("ip route get %s; ip rule", l.Dst)
		}
	}
	problem = fmt.Sprintf("packets for %s take a route of others: %s", t, r)
	if r.Type != "" {
		problem = fmt.Sprintf("packets for %s are dropped by a route: %s", t, r)
	}
	wide := r.Dst.Bits() < t.Subnet.Bits() && !r.IsOurs()
	switch {
	case r.Type == "local", r.Type == "" && r.Protocol == unix.RTPROT_KERNEL:
		return connected(t, r, h, networks)
	case wide && r.IsMain():
		return fmt.Sprintf("flanneld's route to %s is missing: packets take %s", t, r), Logs
	case wide:
		return problem, around(t, r, h.Rules, networks)
	}
	return problem, fmt.Sprintf("ip route del %s%s", r, ruleFor(r))
}

// refused returns the closest route that drops packets as the kernel answered.
func (l Lookup) refused(routes []look.Route) (out look.Route, ok bool) {
	for _, r := range routes {
		refuses := refuses[r.Type] != nil && errors.Is(l.Err, refuses[r.Type]) && r.Dst.Contains(l.Dst)
		if refuses && (!ok || r.Dst.Bits() > out.Dst.Bits()) {
			out, ok = r, true
		}
	}
	return out, ok
}

// refuses are the errors with which the kernel answers for routes that drop.
var refuses = map[string]error{"blackhole": unix.EINVAL, "unreachable": unix.EHOSTUNREACH, "prohibit": unix.EACCES}

// connected explains a route that the kernel makes for an address of this host. It
// goes with the address; to delete it alone would cut off that network.
func connected(t Target, r look.Route, h *look.Host, networks []netip.Prefix) (problem, command string) {
	problem = fmt.Sprintf("packets for %s go to the network %s of %s, which overlaps the overlay network %s", t, r.Dst, r.Dev, join(networks))
	for _, a := range h.Addrs {
		if a.Dev == r.Dev && a.Addr.Masked() == r.Dst || r.Type == "local" && ipfam.Host(a.Addr.Addr()) == r.Dst {
			problem = fmt.Sprintf("packets for %s go to %s: its address %s overlaps the overlay network %s", t, a.Dev, a.Addr, join(networks))
		}
	}
	return problem, fmt.Sprintf("ip address show dev %s; give it an address outside of the overlay network, or choose another Network", printable.Word(r.Dev))
}

// around returns the command that keeps the overlay's packets out of a table of others,
// such as that of a VPN.
func around(t Target, r look.Route, rules []look.Rule, networks []netip.Prefix) string {
	family, network, pref := ipfam.Of(t.Subnet.Addr()), t.Subnet, 0
	for _, n := range networks {
		if n.Contains(t.Subnet.Addr()) {
			network = n
		}
	}
	for _, rule := range rules {
		if rule.Family == family && rule.Table == r.Table && (pref == 0 || rule.Priority <= pref) {
			pref = rule.Priority - 1
		}
	}
	ip := ipfam.Pair[string]{"ip", "ip -6"}[family]
	if pref <= 0 {
		return fmt.Sprintf("%s rule add to %s lookup main pref N, with N below the preference that this shows: %s rule show table %d", ip, network, ip, r.Table)
	}
	return fmt.Sprintf("%s rule add to %s lookup main pref %d", ip, network, pref)
}

// ruleFor returns what to look at if the route is in a table that a rule chose.
func ruleFor(r look.Route) string {
	if r.IsMain() {
		return ""
	}
	return fmt.Sprintf("; or delete the rule that leads to table %d: ip rule | grep 'lookup %d'", r.Table, r.Table)
}

// Logs is the command that shows what the daemon has logged, with its DaemonSet and
// its unit.
const Logs = "kubectl -n kube-flannel logs ds/kube-flannel-ds; or: journalctl -u flanneld"
