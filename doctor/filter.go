package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flannel/internal/firewall"
	"flannel/internal/ipfam"
	"flannel/kernel"
)

var filter = Check{
	Name: "filter",
	About: "The packet filters (nftables, iptables-nft, iptables-legacy), whatever program wrote their rules, pass what pods send to other nodes and " +
		"receive from them, and the backend's own packets.",
	Means: "These packets are dropped on this host. Our accept rules cannot undo a drop in another table, or one that comes first.",
	More:  "masquerading.md#firewalls",
	Find: func(f *Facts) []Finding {
		var out []Finding
		type rule struct {
			base firewall.Base
			in   string
			id   uint64
		}
		seen := map[rule]bool{}
		for _, d := range f.Drops {
			r := rule{d.Finding.Base, d.Finding.In, d.Finding.Rule}
			if found := f.drop(d); !found.Note && !seen[r] {
				seen[r] = true
				out = append(out, found)
			}
		}
		for _, d := range f.Drops {
			r := rule{d.Finding.Base, d.Finding.In, d.Finding.Rule}
			if !seen[r] {
				seen[r] = true
				out = append(out, f.drop(d))
			}
		}
		return out
	},
}

// drop describes for people what drops. In FORWARD of iptables, where Docker has its
// policy, the daemon will put an accept of its own, if it has the program.
func (f *Facts) drop(d Drop) Finding {
	found, chain := d.finding(), d.Finding.Base
	if f.Wanted == nil || d.Packet.Hook != firewall.Forward || chain.Program == "" || chain.Chain != "FORWARD" || d.Finding.Firewalld {
		return found
	}
	if strings.HasSuffix(chain.Program, "-legacy") && !f.Kernel.LegacyTool {
		found.Problem += "; flanneld accepts them there only where it has " + chain.Program
		return found
	}
	found.Note = true
	found.Problem += "; flanneld puts a rule there that accepts them"
	return found
}

// Packet is a packet that must pass this host.
type Packet struct {
	firewall.Packet
	// What describes it for people.
	What string
	// Network is that of the overlay; invalid for a packet of the tunnel.
	Network netip.Prefix
}

// Packets are those for which the packet filters are read.
func (f *Facts) Packets() []Packet {
	var out []Packet
	for _, n := range f.Networks() {
		family := ipfam.Of(n.Addr())
		out = append(out,
			Packet{firewall.Packet{Family: family, Hook: firewall.Forward, Src: n}, "packets from pods", n},
			Packet{firewall.Packet{Family: family, Hook: firewall.Forward, Dst: n}, "packets to pods", n})
	}
	return slices.Concat(out, f.wantedPackets(), f.tunnelPackets(), f.deviceForwards())
}

// portOf returns the UDP port behind a device of the overlay, 0 if it is not known: a
// vxlan device has its own, and of others the daemon knows it.
func (f *Facts) portOf(l kernel.Link) int {
	if l.VXLAN.Port == 0 && f.Daemon.Status != nil {
		return f.Daemon.Status.Port
	}
	return l.VXLAN.Port
}

// wantedPackets are those of a backend that is to be installed.
func (f *Facts) wantedPackets() []Packet {
	var out []Packet
	if f.Wanted == nil || f.Wanted.Encapsulation.Port == 0 {
		return nil
	}
	port := f.Wanted.Encapsulation.Port
	for family, on := range f.families().Each() {
		if on {
			p := firewall.Packet{Family: family, Hook: firewall.Input, Protocol: 17, Port: uint16(port)}
			out = append(out, Packet{Packet: p, What: fmt.Sprintf("the packets of %s on UDP port %d", f.Wanted.Backend.Name, port)})
		}
	}
	return out
}

// deviceForwards are packets between the pods' bridge and the device of the
// overlay: a filter may look at the interfaces.
func (f *Facts) deviceForwards() []Packet {
	var out []Packet
	for _, l := range f.overlays() {
		for family, own := range ipfam.Prefixes(f.own()) {
			if l.VXLAN.Local.IsValid() && ipfam.Of(l.VXLAN.Local) != family {
				continue
			}
			for _, bridge := range f.bridges() {
				in := firewall.Packet{Family: family, Hook: firewall.Forward, In: l.Name, Out: bridge.Name, Dst: own}
				away := firewall.Packet{Family: family, Hook: firewall.Forward, In: bridge.Name, Out: l.Name, Src: own}
				out = append(out,
					Packet{Packet: in, What: fmt.Sprintf("packets to pods that come in by %s", l.Name)},
					Packet{Packet: away, What: fmt.Sprintf("packets of pods that leave by %s", l.Name)})
			}
		}
	}
	return out
}

// tunnelPackets are those of the backend on the uplink. Which peer they come from
// can matter to a filter.
func (f *Facts) tunnelPackets() []Packet {
	var out []Packet
	up, ok := f.uplink()
	if !ok {
		return nil
	}
	for _, l := range f.overlays() {
		port := f.portOf(l)
		if port == 0 {
			continue
		}
		p := firewall.Packet{Family: ipfam.Of(l.VXLAN.Local), Hook: firewall.Input, In: up.Name, Protocol: 17, Port: uint16(port)}
		vias := f.vias(l)
		for _, via := range vias {
			p.Family, p.Src = ipfam.Of(via), ipfam.Host(via)
			out = append(out, Packet{Packet: p, What: fmt.Sprintf("the packets of %s from %s on UDP port %d", l.Name, via, port)})
		}
		if len(vias) == 0 && l.VXLAN.Local.IsValid() {
			out = append(out, Packet{Packet: p, What: fmt.Sprintf("the packets of %s on UDP port %d", l.Name, port)})
		}
	}
	return out
}

// vias returns some addresses of peers that are reached by a tunnel.
func (f *Facts) vias(l kernel.Link) []netip.Addr {
	const sample = 20
	var out []netip.Addr
	if f.Daemon.Status == nil {
		return nil
	}
	for _, p := range f.peers() {
		same := !l.VXLAN.Local.IsValid() || ipfam.Of(l.VXLAN.Local) == ipfam.Of(p.via)
		if p.via.IsValid() && !p.direct && same && !slices.Contains(out, p.via) {
			if out = append(out, p.via); len(out) == sample {
				break
			}
		}
	}
	return out
}

// finding describes for people what drops.
func (d Drop) finding() Finding {
	f := d.Finding
	forwarded := d.Packet.Network.IsValid()
	what, command := d.Packet.What, ""
	switch {
	case forwarded && f.Certain && f.MayAccept:
		what, command = fmt.Sprintf("forwarded packets of %s that no rule with other conditions accepts", d.Packet.Network), f.Allow(d.Packet.Network)
	case forwarded:
		what, command = fmt.Sprintf("forwarded packets of %s", d.Packet.Network), f.Allow(d.Packet.Network)
	default:
		command = allow(f.Base, d.Packet.Packet)
	}
	if !f.Certain || f.MayAccept && !forwarded {
		return Finding{
			Problem: fmt.Sprintf("%s has a rule with other conditions that may drop %s", f.Base, what),
			Command: fmt.Sprintf("if they are dropped: %s", command), Note: true,
		}
	}
	return Finding{Problem: fmt.Sprintf("%s drops %s", f.Base, what), Command: command}
}

// allow returns the command that lets packets pass a chain.
func allow(b firewall.Base, p firewall.Packet) string {
	if b.Program != "" {
		insert := fmt.Sprintf("%s -I %s ", b.Program, b.Chain)
		switch {
		case p.Port != 0:
			return fmt.Sprintf("%s-p udp --dport %d -j ACCEPT", insert, p.Port)
		case p.Dst.IsValid():
			return fmt.Sprintf("%s-i %s -d %s -j ACCEPT", insert, p.In, p.Dst)
		}
		return fmt.Sprintf("%s-o %s -s %s -j ACCEPT", insert, p.Out, p.Src)
	}
	insert := fmt.Sprintf("nft insert rule %s %s ", b.Table, b.Chain)
	word := ipfam.Pair[string]{"ip", "ip6"}[p.Family]
	switch {
	case p.Port != 0:
		return fmt.Sprintf("%sudp dport %d accept", insert, p.Port)
	case p.Dst.IsValid():
		return fmt.Sprintf("%siifname %s %s daddr %s accept", insert, p.In, word, p.Dst)
	}
	return fmt.Sprintf("%soifname %s %s saddr %s accept", insert, p.Out, word, p.Src)
}
