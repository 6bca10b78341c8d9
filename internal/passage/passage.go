// Package passage finds the packet filter rules of this host that drop packets of an
// overlay: those that pods send to other nodes or get from them, and those of the
// tunnel.
package passage

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"flannel/internal/firewall"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/kernel/podbridge"
)

// Host is what decides which packets the overlay has on this host.
type Host struct {
	Networks []netip.Prefix
	// Own are this node's subnets; they may not be known.
	Own ipfam.Pair[netip.Prefix]
	// Bridges are the devices by which pods reach this host; empty if none is known.
	Bridges []firewall.Interface
	// Exits are the devices by which packets leave for other nodes.
	Exits []Exit
	// Tunnels carry such packets.
	Tunnels []Tunnel
	// Bridged are the families in which packets within a bridge meet the filters of IP.
	Bridged ipfam.Pair[bool]
}

// Exit is a device with the packets of some families.
type Exit struct {
	firewall.Interface
	Families ipfam.Pair[bool]
}

// Tunnel is where a backend sends its own packets.
type Tunnel struct {
	// Name is that of the device or the backend.
	Name   string
	Uplink firewall.Interface
	// Local are the addresses of this host that it uses; they may not be known.
	Local []netip.Addr
	Port  int
	// Families are those of Peers, the addresses of some peers.
	Families ipfam.Pair[bool]
	Peers    []netip.Addr
}

// InterfaceOf returns a device as rules name it.
func InterfaceOf(l kernel.Link) firewall.Interface {
	return firewall.Interface{Name: l.Name, Index: l.Index}
}

// Bridges returns the devices of pods; before the first pod the bridge that the CNI
// plugin will make.
func Bridges(devices []kernel.Link) []firewall.Interface {
	if len(devices) == 0 {
		return []firewall.Interface{{Name: podbridge.Name}}
	}
	var out []firewall.Interface
	for _, l := range devices {
		out = append(out, InterfaceOf(l))
	}
	return out
}

// Packet is a packet that must pass this host.
type Packet struct {
	firewall.Packet
	// What says for people what it is.
	What string
	// Network is that of the overlay; invalid for a packet of the tunnel.
	Network netip.Prefix
	// Inward is set if it comes to this host from another one.
	Inward bool
	// each are the packets that are meant if it is for several peers: they are only
	// looked at if something may drop one of them.
	each []Packet
}

// Drop is a rule that may drop packets that matter.
type Drop struct {
	Packet  Packet
	Finding firewall.Finding
}

// Packets are those for which the packet filters are read.
func (h Host) Packets() []Packet {
	var out []Packet
	for _, n := range h.Networks {
		family := ipfam.Of(n.Addr())
		exits := slices.DeleteFunc(slices.Clone(h.Exits), func(e Exit) bool { return !e.Families[family] })
		if len(exits) == 0 {
			exits = []Exit{{}} // others have made the routes, or nobody yet
		}
		bridges := h.Bridges
		if len(bridges) == 0 {
			bridges = []firewall.Interface{{}}
		}
		for _, b := range bridges {
			for _, e := range exits {
				out = append(out, h.between(n, b, e.Interface)...)
			}
			if own := h.Own[family]; h.Bridged[family] && own.IsValid() && b.Name != "" {
				p := firewall.Packet{Family: family, Hooks: within, Src: own, Dst: own, In: b, Out: b, Protocol: unix.IPPROTO_TCP}
				out = append(out, Packet{Packet: p, What: "packets between pods on " + b.Name, Network: n})
			}
		}
	}
	for _, t := range h.Tunnels {
		out = append(out, t.packets()...)
	}
	return out
}

// within are the hooks that a packet from pod to pod on one bridge meets.
var within = []firewall.Hook{firewall.Prerouting, firewall.Forward, firewall.Postrouting}

// between are new connections from pods of this node to those of others, and from
// those of others.
func (h Host) between(n netip.Prefix, bridge, exit firewall.Interface) []Packet {
	family := ipfam.Of(n.Addr())
	own := h.Own[family]
	if !own.IsValid() {
		own = n
	}
	p := firewall.Packet{Family: family, Hooks: firewall.Through, Protocol: unix.IPPROTO_TCP}
	away, in := p, p
	away.Src, away.Dst, away.In, away.Out = own, n, bridge, exit
	in.Src, in.Dst, in.In, in.Out = n, own, exit, bridge
	leave, enter := "packets of pods", "packets to pods"
	if exit.Name != "" {
		leave, enter = leave+" that leave by "+exit.Name, enter+" that come in by "+exit.Name
	}
	return []Packet{{Packet: away, What: leave, Network: n}, {Packet: in, What: enter, Network: n, Inward: true}}
}

// packets are those of the tunnel in both directions. Which peer they are from can
// matter to a filter.
func (t Tunnel) packets() []Packet {
	packets := func(family ipfam.Family, peer netip.Prefix, who string) (in, away Packet) {
		p := firewall.Packet{Family: family, Protocol: unix.IPPROTO_UDP, Port: uint16(t.Port)}
		received, sent := p, p
		for _, a := range t.Local {
			if ipfam.Of(a) == family {
				received.Dst, sent.Src = ipfam.Host(a), ipfam.Host(a)
			}
		}
		received.Hooks, received.In, received.Src = firewall.Inward, t.Uplink, peer
		sent.Hooks, sent.Out, sent.Dst = firewall.Outward, t.Uplink, peer
		from, to := "", ""
		if who != "" {
			from, to = " from "+who, " to "+who
		}
		in = Packet{Packet: received, What: fmt.Sprintf("the packets of %s%s on UDP port %d", t.Name, from, t.Port), Inward: true}
		away = Packet{Packet: sent, What: fmt.Sprintf("the packets of %s%s on UDP port %d", t.Name, to, t.Port)}
		return in, away
	}
	var out []Packet
	for _, family := range ipfam.All() {
		in, away := packets(family, netip.Prefix{}, "")
		for _, a := range t.Peers {
			if ipfam.Of(a) == family {
				received, sent := packets(family, ipfam.Host(a), a.String())
				in.each, away.each = append(in.each, received), append(away.each, sent)
			}
		}
		if t.Families[family] || len(in.each) > 0 {
			out = append(out, in, away)
		}
	}
	return out
}

// rule names a rule for comparison.
type rule struct {
	base     firewall.Base
	in       string
	number   uint64
	position int
}

func (d Drop) rule() rule {
	f := d.Finding
	return rule{f.Base, f.In, f.Rule, f.Position}
}

// Found is what is known of one rule.
type Found struct {
	Drop
	Problem, Command string
	// Certain is set if packets are dropped for sure. Otherwise that depends on
	// conditions that are not understood, or on what is not known of the packets.
	Certain bool
}

// Explain returns one description for each rule, certain ones first.
func Explain(drops []Drop) []Found {
	byRule := map[rule][]Drop{}
	var order []rule
	for _, d := range drops {
		r := d.rule()
		if byRule[r] == nil {
			order = append(order, r)
		}
		byRule[r] = append(byRule[r], d)
	}
	var out, doubtful []Found
	for _, r := range order {
		if f := explain(byRule[r]); f.Certain {
			out = append(out, f)
		} else {
			doubtful = append(doubtful, f)
		}
	}
	return append(out, doubtful...)
}

// certain reports whether packets are dropped for sure. A rule that accepts only some
// forwarded packets does not help the others.
func (d Drop) certain() bool {
	f := d.Finding
	return f.Certain && !f.Doubtful && (!f.MayAccept || d.Packet.Network.IsValid())
}

// explain describes one rule, which drops some packets.
func explain(drops []Drop) Found {
	if sure := slices.DeleteFunc(slices.Clone(drops), func(d Drop) bool { return !d.certain() }); len(sure) > 0 {
		drops = sure
	}
	d := drops[0]
	out := Found{Drop: d, Certain: d.certain()}
	f, what := d.Finding, d.Packet.What
	out.Command = f.Pass(d.Packet.Packet)
	if n := d.Packet.Network; n.IsValid() && both(drops) || n.IsValid() && f.Firewalld {
		what, out.Command = "forwarded packets of "+n.String(), f.Allow(n)
	}
	if f.MayAccept && d.Packet.Network.IsValid() {
		what += " that no rule with other conditions accepts"
	}
	if !out.Certain {
		out.Problem = fmt.Sprintf("%s has a rule with other conditions that may drop %s (%s)", f.Base, what, f.Where())
		out.Command = "if they are dropped: " + out.Command
		return out
	}
	out.Problem = fmt.Sprintf("%s drops %s (%s)", f.Base, what, f.Where())
	return out
}

// both reports whether packets of pods are dropped in both directions.
func both(drops []Drop) bool {
	inward := func(want bool) bool {
		return slices.ContainsFunc(drops, func(d Drop) bool { return d.Packet.Network.IsValid() && d.Packet.Inward == want })
	}
	return inward(true) && inward(false)
}
