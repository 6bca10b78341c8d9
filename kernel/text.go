package kernel

import (
	"fmt"
	"slices"
	"strings"
)

// String returns the state as text in the words of the ip tool, one entry per
// line, sorted within each table.
func (s State) String() string {
	var t text
	for _, d := range s.Devices {
		t.add(0, d.String())
		for _, a := range d.Addrs {
			t.add(1, fmt.Sprintf("addr %s dev %s", a, d.Name))
		}
	}
	for _, e := range s.FDB {
		t.add(2, e.String())
	}
	for _, n := range s.Neighbors {
		t.add(3, n.String())
	}
	for _, r := range s.Routes {
		t.add(4, r.String())
	}
	for _, p := range s.OnDemandPeers {
		t.add(5, p.String())
	}
	for _, c := range s.CatchAllRoutes {
		t.add(5, fmt.Sprintf("catch-all %s dev %s own %s", c.Network, c.Dev, c.Own))
	}
	return t.String()
}

// String returns the device as the ip tool shows it.
func (d Device) String() string {
	line := fmt.Sprintf("link %s mtu %d", d.Name, d.MTU)
	if !d.MAC.IsZero() {
		line += " address " + d.MAC.String()
	}
	if d.TxChecksumOff {
		line += " tx-checksum off"
	}
	if d.VXLAN != nil {
		line += " " + d.VXLAN.String()
	}
	if d.TUN {
		line += " tun"
	}
	return line
}

// String returns the attributes as the ip tool shows them.
func (v VXLAN) String() string {
	line := fmt.Sprintf("vxlan id %d local %s dev %d", v.VNI, v.Local, v.Uplink)
	if v.Port != 0 {
		line += fmt.Sprintf(" dstport %d", v.Port)
	}
	if !v.Learning {
		line += " nolearning"
	}
	if v.GBP {
		line += " gbp"
	}
	return line
}

// String returns the entry as the bridge tool shows it.
func (e FDBEntry) String() string {
	return fmt.Sprintf("fdb %s dev %s dst %s", e.MAC, e.Dev, e.Dst)
}

// String returns the neighbor as the ip tool shows it.
func (n Neighbor) String() string {
	return fmt.Sprintf("neigh %s dev %s lladdr %s", n.Addr, n.Dev, n.MAC)
}

// String returns the route as the ip tool shows it.
func (r Route) String() string {
	if r.Blackhole {
		return "route blackhole " + r.Dst.String() + r.metricText()
	}
	line := "route " + r.Dst.String()
	if r.Via.IsValid() {
		line += " via " + r.Via.String()
	}
	line += " dev " + r.Dev + r.metricText()
	if r.OnLink {
		line += " onlink"
	}
	return line
}

func (r Route) metricText() string {
	if r.Metric == 0 {
		return ""
	}
	return fmt.Sprintf(" metric %d", r.Metric)
}

// String returns the peer with its three entries.
func (p OnDemandPeer) String() string {
	return fmt.Sprintf("on-demand %s: %s; %s; %s", p.Subnet, p.Route, p.Neighbor, p.FDB)
}

// text collects lines in sections.
type text struct{ sections [6][]string }

func (t *text) add(section int, line string) {
	t.sections[section] = append(t.sections[section], line)
}

// String returns the lines in the order of the sections, each sorted.
func (t *text) String() string {
	var b strings.Builder
	for _, lines := range t.sections {
		slices.Sort(lines)
		for _, line := range lines {
			b.WriteString(line)
			b.WriteByte('\n')
		}
	}
	return b.String()
}
