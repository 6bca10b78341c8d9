package status

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flannel/backend"
	"flannel/network"
)

// Remedy tells what to do about a peer that probes have not found fine. ends names
// the two ends of the path, if a wrong one can be the cause, and command is what to
// run, and on which of them; it is empty for a peer that may be fine. port is the UDP
// port of the backend, 0 if it has none or none is known.
func Remedy(s *network.Status, p network.Peer, port int) (ends, command string) {
	if p.Probe == nil || p.Probe.Verdict == backend.Fine && p.Probe.Cause == "" {
		return "", ""
	}
	switch p.Probe.Cause {
	case backend.Local:
		return "", fmt.Sprintf("ip route get %s; iptables -S OUTPUT; nft list ruleset", p.Via)
	case backend.TooLarge: // the reason has numbers of this host's probes, and no text of others
		if _, set, ok := strings.Cut(p.Probe.Why, ": set "); ok {
			return "", "set " + set
		}
		return "", "flanneld status " + p.Subnet
	}
	here, there := cmp.Or(sameFamily(s.Lease.PublicIP, p.Via), "this node"), p.Via
	if address, _, _ := strings.Cut(p.Subnet, "/"); p.Name != "" && !strings.Contains(p.Name, address) { // with etcd it is made of the subnets
		there = fmt.Sprintf("%s (%s)", p.Name, p.Via)
	}
	ends = endsOf(s, p)
	if p.Probe.Verdict == backend.Silent {
		return ends, ""
	}
	packets, trace := "packets for "+p.Subnet, ""
	switch {
	case port != 0:
		packets = fmt.Sprintf("UDP port %d", port)
		trace = fmt.Sprintf("; if it finds nothing, tcpdump -ni any udp port %d and host %s, on both nodes", port, p.Via)
	case backend.How(p.How) == backend.Tunnel:
		packets = "the UDP port of the backend"
	}
	if p.Probe.Cause == backend.WayThere {
		return ends, fmt.Sprintf("flanneld doctor, on %s: it, and each firewall on the way there, must accept %s from %s; the way back works", there, packets, here)
	}
	return ends, fmt.Sprintf("flanneld doctor, on %s%s: %s and %s, and each firewall between them, must accept %s from each other",
		firstEnd(s.Peers, there), trace, here, there, packets)
}

// firstEnd is the end of a path to look at first: that of the peer if others answer,
// this one if none of several does.
func firstEnd(peers []network.Peer, there string) string {
	broken := 0
	for _, p := range peers {
		switch {
		case p.Probe == nil:
		case p.Probe.Verdict == backend.Fine:
			return there + ", as other peers answer"
		case p.Probe.Verdict == backend.Broken:
			broken++
		}
	}
	if broken > 1 {
		return "this node first, as no peer answers"
	}
	return "both nodes"
}

// endsOf names this node's uplink and the public addresses of both ends.
func endsOf(s *network.Status, p network.Peer) string {
	from := s.Uplink.Name
	if addr := sameFamily(s.Uplink.Addr, p.Via); addr != "" {
		from = addr + " of " + from
	}
	if s.Uplink.Why != "" {
		from += ", found by " + s.Uplink.Why
	}
	return fmt.Sprintf("this node sends from %s; its public address is %s, that of the peer is %s",
		cmp.Or(from, "an unknown uplink"), cmp.Or(sameFamily(s.Lease.PublicIP, p.Via), "unknown"), cmp.Or(p.Via, "unknown"))
}

// sameFamily returns the address of the family of another one.
func sameFamily(addrs []netip.Addr, as string) string {
	other, err := netip.ParseAddr(as)
	i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is4() == other.Is4() })
	if err != nil || i < 0 {
		return ""
	}
	return addrs[i].String()
}
