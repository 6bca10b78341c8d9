package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/network"
)

var overlay = Check{
	Name: "overlay",
	About: "Echo requests through the overlay, both small and of the full size, reach the peers and are answered. The daemon probes 20 peers, " +
		"and all those suspected to be broken. A peer that has never answered is only a note, because it may drop echo requests.",
	Means: "Pods of this node cannot reach those of the peer, or only with small packets. If nothing else is found on either node, something on the path drops the backend's packets.",
	More:  "troubleshooting.md#a-peer-does-not-answer",
	Find: func(f *Facts) []Finding {
		var broken, silent []Finding
		s := f.Daemon.Status
		if s == nil {
			return nil
		}
		alone := f.alone()
		for _, p := range s.Peers {
			if p.Probe == nil {
				continue
			}
			found := Finding{Problem: fmt.Sprintf("%s at %s (%s): %s", p.Subnet, p.Via, p.Name, p.Probe.Why), Command: "flanneld status " + shell(p.Name)}
			switch p.Probe.Verdict {
			case backend.Broken:
				found.Command = f.whereToLook(p, alone)
				broken = append(broken, found)
			case backend.Silent:
				found.Note = true
				silent = append(silent, found)
			}
		}
		return slices.Concat(shorten(broken), silent)
	},
}

// alone reports whether none of several peers answers: then this host is suspected.
func (f *Facts) alone() bool {
	broken := 0
	for _, p := range f.Daemon.Status.Peers {
		switch {
		case p.Probe == nil || p.Probe.Verdict == backend.Silent:
		case p.Probe.Verdict == backend.Broken:
			broken++
		default:
			return false
		}
	}
	return broken > 1
}

// whereToLook says at which end of a broken tunnel to look, and for what.
func (f *Facts) whereToLook(p network.Peer, alone bool) string {
	const rules = "iptables -S INPUT; nft list ruleset"
	port := f.port()
	if _, remedy, ok := strings.Cut(p.Probe.Why, ": set "); ok {
		return "set " + remedy
	}
	switch {
	case strings.Contains(p.Probe.Why, "do not leave this host"):
		return fmt.Sprintf("ip route get %s; iptables -S OUTPUT; nft list ruleset", p.Via)
	case port == 0 || backend.How(p.How) != backend.Tunnel || !strings.HasPrefix(p.Probe.Why, "no answer"):
		return "flanneld status " + shell(p.Name)
	}
	there, here := p.Via, f.publicOf(p.Via)
	if address, _, _ := strings.Cut(p.Subnet, "/"); p.Name != "" && !strings.Contains(p.Name, address) { // with etcd it is made of the subnets
		there = fmt.Sprintf("%s (%s)", p.Name, p.Via)
	}
	if p.Probe.WayBack {
		return fmt.Sprintf("%s, on %s: it, and each firewall on the way there, must accept UDP port %d from %s; the way back works", rules, there, port, here)
	}
	first := ""
	if alone {
		first = ", on this one first, as no peer answers"
	}
	return fmt.Sprintf("%s; tcpdump -ni any udp port %d and host %s, on both nodes%s: %s and %s, and each firewall between them, must accept UDP port %d from each other",
		rules, port, p.Via, first, here, there, port)
}

// publicOf returns this node's public address in the family of a peer's.
func (f *Facts) publicOf(via string) string {
	peer, _ := netip.ParseAddr(via)
	for _, a := range f.Daemon.Status.Lease.PublicIP {
		if ipfam.Of(a) == ipfam.Of(peer) {
			return a.String()
		}
	}
	return "this host"
}

// port returns the UDP port of the backend, 0 if it has none.
func (f *Facts) port() int {
	for _, l := range f.overlays() {
		if port := f.portOf(l); port != 0 {
			return port
		}
	}
	return 0
}
