package status

import (
	"net/netip"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/passage"
	"flannel/kernel"
	"flannel/kernel/look"
	"flannel/network"
)

// readHost reads what this host has inside its own subnets. Without it less is known of
// the packets.
func (s *steps) readHost() {
	for _, p := range s.report.Status.Lease.Subnet {
		s.own[ipfam.Of(p.Addr())] = p
	}
	s.host, _ = s.kernel.Host(func(r look.Route) bool {
		own := s.own[ipfam.Of(r.Dst.Addr())]
		return own.IsValid() && own.Bits() <= r.Dst.Bits() && own.Contains(r.Dst.Addr())
	})
}

// filter looks at the rules that packets to and from the peer meet on this host, as
// doctor does.
func (s *steps) filter(route look.Route) {
	drops, err := s.filters(s.passage(route).Packets())
	if err != nil {
		s.way.Steps = append(s.way.Steps, Step{Name: "rules", OK: true, Unsure: true, Text: "not read: " + err.Error()})
		return
	}
	found := passage.Explain(drops)
	switch {
	case len(found) == 0:
		s.add("rules", true, "", "none of this host drops such packets, nor those of the tunnel")
	case found[0].Certain:
		s.add("rules", false, found[0].Command, "%s", found[0].Problem)
	default:
		s.add("rules", true, "flanneld doctor -v", "none of this host surely drops such packets; %d may, as flanneld doctor -v shows", len(found))
	}
}

// passage is what decides which packets the way has on this host.
func (s *steps) passage(route look.Route) passage.Host {
	status, p := s.report.Status, s.way.Peer
	h := passage.Host{Own: s.own, Bridges: passage.Bridges(s.host.PodDevices(s.own, s.report.backends.IsOverlay))}
	for _, n := range status.Network {
		if ipfam.Of(n.Addr()) == ipfam.Of(s.way.Addr) {
			h.Networks = append(h.Networks, n)
		}
	}
	links := s.kernel.Links()
	dev, ok := links.ByName(route.Dev)
	tunnel := backend.How(p.How) == backend.Tunnel
	for _, d := range status.Devices { // the route may lead astray
		if l, found := links.ByName(d.Name); found && tunnel && !s.report.backends.IsOverlay(dev) {
			dev, ok = l, true
		}
	}
	if !ok {
		return h
	}
	var family ipfam.Pair[bool]
	family[ipfam.Of(s.way.Addr)] = true
	h.Exits = []passage.Exit{{Interface: passage.InterfaceOf(dev), Families: family}}
	up, known := links.ByName(status.Uplink.Name)
	if !known {
		up, known = links.ByIndex(dev.VXLAN.Uplink)
	}
	port := PortOf(dev, status)
	if tunnel && known && port != 0 {
		t := passage.Tunnel{Name: dev.Name, Uplink: passage.InterfaceOf(up), Local: status.Uplink.Addr, Port: port}
		if via, err := netip.ParseAddr(p.Via); err == nil {
			t.Peers = []netip.Addr{via}
		} else {
			t.Families = family
		}
		h.Tunnels = []passage.Tunnel{t}
	}
	return h
}

// PortOf returns the UDP port behind a device of the overlay, 0 if it is not known: a
// vxlan device has its own, and of others the daemon knows it. s may be nil.
func PortOf(dev kernel.Link, s *network.Status) int {
	if dev.VXLAN.Port == 0 && s != nil {
		return s.Port
	}
	return dev.VXLAN.Port
}
