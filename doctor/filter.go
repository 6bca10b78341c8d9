package doctor

import (
	"net/netip"
	"slices"
	"strings"

	"flannel/internal/firewall"
	"flannel/internal/ipfam"
	"flannel/internal/passage"
	"flannel/kernel"
	"flannel/status"
)

var filter = Check{
	Name: "filter",
	About: "At each hook, the packet filters (nftables, iptables-nft, iptables-legacy) pass new connections of pods to other nodes and " +
		"from them, and the backend's own packets in both directions, whatever program wrote the rules. A rule is a finding if all its conditions, and those of the rules ahead of it that accept, are understood; otherwise it is a note.",
	Means: "These packets are dropped on this host. Our accept rules cannot undo a drop in another table, or one that comes first.",
	More:  "masquerading.md#firewalls",
	Find: func(f *Facts) []Finding {
		var out, notes []Finding
		for _, d := range passage.Explain(f.Drops) {
			if found := f.drop(d); found.Note {
				notes = append(notes, found)
			} else {
				out = append(out, found)
			}
		}
		return slices.Concat(shorten(out), shorten(notes))
	},
}

// drop describes for people what drops. In FORWARD of iptables, where Docker has its
// policy, the daemon will put an accept of its own, if it has the program.
func (f *Facts) drop(d passage.Found) Finding {
	found, chain := Finding{Problem: d.Problem, Command: d.Command, Note: !d.Certain}, d.Finding.Base
	if f.Wanted == nil || d.Finding.Hook != firewall.Forward || !chain.IsForward() || d.Finding.Firewalld {
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

// Packets are those for which the packet filters are read.
func (f *Facts) Packets() []passage.Packet {
	h := passage.Host{Networks: f.Networks(), Own: f.own(), Exits: f.exits(), Tunnels: f.tunnels()}
	h.Bridges = passage.Bridges(f.Host.PodDevices(f.own(), f.Backends.IsOverlay))
	for family, name := range bridgeFilters {
		h.Bridged[family] = f.setting(name) == "1"
	}
	return h.Packets()
}

// bridgeFilters are the settings with which packets within a bridge meet the filters.
var bridgeFilters = ipfam.Pair[string]{"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"}

// exits are the devices by which packets leave for other nodes: those of the overlay,
// and the uplink if a peer is reached directly.
func (f *Facts) exits() []passage.Exit {
	var out []passage.Exit
	for _, l := range f.overlays() {
		families := f.families()
		if l.VXLAN.Local.IsValid() {
			families = ipfam.Pair[bool]{}
			families[ipfam.Of(l.VXLAN.Local)] = true
		}
		out = append(out, passage.Exit{Interface: passage.InterfaceOf(l), Families: families})
	}
	var direct ipfam.Pair[bool]
	for _, p := range f.peers() {
		direct[ipfam.Of(p.Subnet.Addr())] = direct[ipfam.Of(p.Subnet.Addr())] || p.Direct
	}
	if up, ok := f.uplink(); ok && direct != (ipfam.Pair[bool]{}) {
		out = append(out, passage.Exit{Interface: passage.InterfaceOf(up), Families: direct})
	}
	return out
}

// tunnels are those that this host has, or will have.
func (f *Facts) tunnels() []passage.Tunnel {
	if w := f.Wanted; w != nil {
		if w.Encapsulation.Port == 0 {
			return nil
		}
		up, _ := f.Host.Links.ByName(f.DefaultDev)
		return []passage.Tunnel{{Name: w.Backend.Name, Uplink: passage.InterfaceOf(up), Port: w.Encapsulation.Port, Families: f.families()}}
	}
	var out []passage.Tunnel
	up, ok := f.uplink()
	for _, l := range f.overlays() {
		if port := status.PortOf(l, f.Daemon.Status); ok && port != 0 {
			t := passage.Tunnel{Name: l.Name, Uplink: passage.InterfaceOf(up), Port: port, Peers: f.vias(l)}
			switch s := f.Daemon.Status; {
			case l.VXLAN.Local.IsValid():
				t.Local = []netip.Addr{l.VXLAN.Local}
			case s != nil:
				t.Local = s.Uplink.Addr
			}
			if l.VXLAN.Local.IsValid() {
				t.Families[ipfam.Of(l.VXLAN.Local)] = true
			}
			out = append(out, t)
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
		same := !l.VXLAN.Local.IsValid() || ipfam.Of(l.VXLAN.Local) == ipfam.Of(p.Via)
		if p.Via.IsValid() && !p.Direct && same && !slices.Contains(out, p.Via) {
			if out = append(out, p.Via); len(out) == sample {
				break
			}
		}
	}
	return out
}
