package status

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/passage"
	"flannel/internal/sysctl"
	"flannel/kernel"
	"flannel/kernel/look"
	"flannel/network"
)

// Step is one of a packet's way to a peer.
type Step struct {
	Name string `json:"name"`
	// OK is false where the way ends or leads astray. Unsure means that nothing is
	// proved either way.
	OK     bool   `json:"ok"`
	Unsure bool   `json:"unsure,omitempty"`
	Text   string `json:"text"`
	// Command shows the same in the kernel, or mends it.
	Command string `json:"command,omitempty"`
}

// Way is that of packets of this node's pods to an address.
type Way struct {
	Schema int           `json:"schema"`
	To     string        `json:"to"`
	Addr   netip.Addr    `json:"addr"`
	Peer   *network.Peer `json:"peer,omitempty"`
	// ProbeProblem is why the peer could not be probed.
	ProbeProblem string `json:"probeProblem,omitempty"`
	Steps        []Step `json:"steps"`
}

// Kernel answers what the steps depend on.
type Kernel interface {
	Lookup(dst, source netip.Addr) (look.Route, error)
	Neighbor(dev string, addr netip.Addr) (kernel.MAC, error)
	FDB(dev string, mac kernel.MAC) (netip.Addr, error)
	Links() look.Links
	Host(wanted func(look.Route) bool) (look.Host, error)
	Setting(name string) string
}

// Filters reads the rules of this host that may drop packets.
type Filters func([]passage.Packet) ([]passage.Drop, error)

// Find returns the ways to an address or to the peer of this name, one for each
// family. It has at least one if there is no error.
func (r *Report) Find(to string) ([]Way, error) {
	if r.Status == nil {
		return nil, fmt.Errorf("no peers are known yet: %s", strings.Join(r.Problems, "; "))
	}
	if addr, err := netip.ParseAddr(to); err == nil {
		return []Way{r.toAddr(addr.Unmap())}, nil
	}
	var out []Way
	for _, p := range r.Status.Peers {
		if p.Name != to && p.Via != to && p.Subnet != to {
			continue
		}
		prefix, _ := netip.ParsePrefix(p.Subnet)
		out = append(out, Way{Schema: Schema, To: to, Peer: &p, Addr: firstPod(prefix)})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no peer is called %q: use the address of a pod, or a name, subnet or address that 'flanneld status' shows", to)
	}
	return out, nil
}

// firstPod is the first address of a subnet that a pod can have.
func firstPod(subnet netip.Prefix) netip.Addr {
	if !subnet.IsValid() {
		return netip.Addr{}
	}
	return subnet.Addr().Next().Next()
}

func (r *Report) toAddr(addr netip.Addr) Way {
	w := Way{Schema: Schema, To: addr.String(), Addr: addr}
	for _, p := range r.Status.Peers {
		if subnet, err := netip.ParsePrefix(p.Subnet); err == nil && subnet.Contains(addr) {
			w.Peer = &p
			return w
		}
		if p.Via == addr.String() { // a node's own address: its pods are meant
			if subnet, err := netip.ParsePrefix(p.Subnet); err == nil {
				w.Peer, w.Addr = &p, firstPod(subnet)
			}
		}
	}
	return w
}

// Explain fills in the steps. Further ones follow the first that is not OK only
// where they tell more.
//
// Without filters, which reads the rules that drop packets, the rules are what the
// daemon knows of them.
func (r *Report) Explain(w *Way, k Kernel, filters Filters) {
	s := steps{report: r, way: w, kernel: k, filters: filters}
	if !s.lease() {
		return
	}
	s.readHost()
	route, ok := s.route()
	if ok {
		s.tunnel(route)
	}
	s.rules(route)
	s.underlay()
	s.answer()
}

// steps collects them.
type steps struct {
	report  *Report
	way     *Way
	kernel  Kernel
	filters Filters
	// own are this node's subnets, host is what this host has inside of them.
	own  ipfam.Pair[netip.Prefix]
	host look.Host
	// port is the UDP port of the tunnel, 0 if it is not known.
	port int
}

func (s *steps) add(name string, ok bool, command, format string, args ...any) {
	s.way.Steps = append(s.way.Steps, Step{Name: name, OK: ok, Text: fmt.Sprintf(format, args...), Command: command})
}

// lease reports whether a peer is known that has the address, and may be used.
func (s *steps) lease() bool {
	p, status := s.way.Peer, s.report.Status
	if p == nil {
		own := func(subnet netip.Prefix) bool { return subnet.Contains(s.way.Addr) }
		switch {
		case slices.ContainsFunc(status.Lease.Subnet, own):
			s.add("lease", true, "ip route get "+s.way.Addr.String(), "%s is in the subnet of this node: the bridge leads there, not the overlay", s.way.Addr)
		case slices.ContainsFunc(status.Network, own):
			s.add("lease", false, "", "no node has a lease for a subnet with %s: its node is gone, or its flanneld is not running", s.way.Addr)
		default:
			s.add("lease", false, "", "%s is outside the overlay network %s", s.way.Addr, join(status.Network))
		}
		return false
	}
	if !IsUsed(*p) {
		s.add("lease", false, "", "%s of %s is %s: %s", p.Subnet, cmp.Or(p.Name, "a peer"), p.How, p.Why)
		return backend.How(p.How) == backend.Unreachable
	}
	text := fmt.Sprintf("%s has %s", cmp.Or(p.Name, "a peer"), p.Subnet)
	if p.Via != "" {
		text += " and is reached at " + p.Via
	}
	if p.Note != "" {
		text += "; note: " + p.Note
	}
	s.add("lease", true, "", "%s", text)
	return true
}

// route asks which way the kernel takes.
func (s *steps) route() (look.Route, bool) {
	t, _ := TargetOf(*s.way.Peer)
	l := Lookup{Dst: s.way.Addr}
	l.Route, l.Err = s.kernel.Lookup(l.Dst, s.host.PodSource(s.own, ipfam.Of(l.Dst)))
	if !s.egress().IsRight(t, l) {
		h, _ := s.kernel.Host(func(r look.Route) bool { return r.Dst.Contains(l.Dst) }) // what cannot be read is not explained
		problem, command := WrongRoute(t, l, &h, s.report.Status.Network)
		s.add("route", false, command, "%s", problem)
		return l.Route, false
	}
	text := fmt.Sprintf("%s over %s", l.Route.Dst, l.Route.Dev)
	if l.Route.Via.IsValid() {
		text += " via " + l.Route.Via.String()
	}
	s.add("route", true, "ip route get "+l.Dst.String(), "%s", text)
	return l.Route, true
}

func (s *steps) egress() Egress {
	e := Egress{Uplink: s.report.Status.Uplink.Name}
	for _, l := range s.kernel.Links() {
		if s.report.has(l) {
			e.Overlays = append(e.Overlays, l.Name)
		}
	}
	return e
}

// tunnel follows a packet into the device, if that is the overlay's.
func (s *steps) tunnel(route look.Route) {
	d, _ := s.kernel.Links().ByName(route.Dev)
	if !s.report.backends.IsOverlay(d) {
		return
	}
	if !d.Up {
		s.add("device", false, "ip link set "+d.Name+" up", "%s is down", d.Name)
		return
	}
	if d.Kind != kernel.KindVXLAN {
		s.add("device", true, "ip -s link show "+d.Name, "%s (MTU %d): flanneld itself sends the packets", d.Name, d.MTU)
		return
	}
	s.port = d.VXLAN.Port
	s.add("device", true, "ip -s -d link show "+d.Name, "%s, VNI %d, UDP port %d, MTU %d", d.Name, d.VXLAN.VNI, d.VXLAN.Port, d.MTU)
	if !route.Via.IsValid() { // on demand, and not in use
		s.add("neighbor", true, "ip neigh show dev "+d.Name, "none yet: the first packet makes flanneld put the entries")
		return
	}
	mac, err := s.kernel.Neighbor(d.Name, route.Via)
	command := fmt.Sprintf("ip neigh show %s dev %s", route.Via, d.Name)
	if err != nil || mac.IsZero() {
		s.add("neighbor", false, command, "no MAC for %s on %s%s", route.Via, d.Name, because(err))
		return
	}
	s.add("neighbor", true, command, "%s has the MAC %s", route.Via, mac)
	dst, err := s.kernel.FDB(d.Name, mac)
	command = fmt.Sprintf("bridge fdb show dev %s | grep %s", d.Name, mac)
	switch {
	case err != nil || !dst.IsValid():
		s.add("FDB entry", false, command, "no host for the MAC %s%s", mac, because(err))
	case s.way.Peer.Via != "" && dst.String() != s.way.Peer.Via:
		s.add("FDB entry", false, command, "%s is sent to %s, but the lease says %s", mac, dst, s.way.Peer.Via)
	default:
		s.add("FDB entry", true, command, "%s is sent to %s", mac, dst)
	}
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// rules tells what the packet filters of this host do with the packets, and what the
// daemon knows of them.
func (s *steps) rules(route look.Route) {
	known := []string{"rules"}
	if s.filters == nil {
		known = append(known, "forwarding") // or else it is looked at below
	}
	wrong := s.settings()
	for _, check := range known {
		if text := s.report.problem(check); text != "" && s.report.From == FromDaemon {
			s.add("rules", false, "", "%s", strings.TrimPrefix(text, "! "))
			wrong = true
		}
	}
	switch {
	case s.filters != nil:
		s.filter(route)
	case !wrong && s.report.From == FromDaemon:
		s.add("rules", true, "", "written; flanneld sees no rule or setting of this host that drops packets of pods")
	}
}

// settings reports whether settings of this host drop packets on the way, as doctor
// judges them. Those for Services have nothing to do with a peer.
func (s *steps) settings() (wrong bool) {
	up, _ := s.kernel.Links().ByName(s.report.Status.Uplink.Name)
	var family ipfam.Pair[bool]
	family[ipfam.Of(s.way.Addr)] = true
	for _, p := range sysctl.Find(s.kernel.Setting, family, up.Name) {
		if p.Where == sysctl.Everywhere || p.Where == sysctl.WithSeveralUplinks && s.leavesElsewhere(up.Name) {
			s.add("rules", false, p.Command, "%s", p.Text)
			wrong = true
		}
	}
	return wrong
}

// leavesElsewhere reports whether packets to the other host leave by another interface
// than the uplink.
func (s *steps) leavesElsewhere(uplink string) bool {
	via, err := netip.ParseAddr(s.way.Peer.Via)
	if err != nil || !via.Is4() || uplink == "" {
		return false
	}
	route, err := s.kernel.Lookup(via, netip.Addr{})
	return err == nil && route.Type == "" && route.Dev != uplink
}

// underlay asks for the way to the other host.
func (s *steps) underlay() {
	via, err := netip.ParseAddr(s.way.Peer.Via)
	if err != nil {
		return
	}
	command := "ip route get " + via.String()
	route, err := s.kernel.Lookup(via, netip.Addr{})
	up := s.report.Status.Uplink.Name
	switch {
	case err != nil:
		s.add("underlay", false, command, "no route to the host %s: %v", via, err)
	case slices.Contains(s.egress().Overlays, route.Dev):
		s.add("underlay", false, command, "the route to the host %s leads into the overlay, over %s", via, route.Dev)
	case up != "" && route.Dev != up:
		s.add("underlay", true, command, "%s over %s; the uplink is %s", via, route.Dev, up)
	default:
		s.add("underlay", true, command, "%s over %s", via, route.Dev)
	}
}

// answer tells what probes have shown; without any the step is left out.
func (s *steps) answer() {
	if s.way.ProbeProblem != "" {
		s.way.Steps = append(s.way.Steps, Step{Name: "answer", OK: true, Unsure: true, Text: "not probed: " + s.way.ProbeProblem})
		return
	}
	p := s.way.Peer.Probe
	if p == nil {
		return
	}
	text := p.Why
	ends, command := Remedy(s.report.Status, *s.way.Peer, s.port)
	if ends != "" {
		text += "; " + ends
	}
	switch {
	case p.Verdict == backend.Fine && p.Why == "":
		s.add("answer", true, "", "%s answers after %.1f ms, even to packets of the full size", cmp.Or(s.way.Peer.Name, "the peer"), p.RoundTrip*1000)
	case p.Verdict == backend.Broken:
		s.add("answer", false, command, "%s", text)
	default:
		s.way.Steps = append(s.way.Steps, Step{Name: "answer", OK: true, Unsure: true, Text: text})
	}
}

// mark is what a step begins with.
func (s Step) mark() string {
	switch {
	case !s.OK:
		return "!!"
	case s.Unsure:
		return "??"
	}
	return "ok"
}

// WriteText writes a way for people.
func (w *Way) WriteText(out io.Writer) error {
	fmt.Fprintf(out, "From pods of this node to %s:\n", clean(w.Addr.String()))
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, s := range w.Steps {
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.mark(), s.Name, clean(s.Text))
		if s.Command != "" && !s.OK {
			fmt.Fprintf(t, "\t\t  # %s\n", clean(s.Command))
		}
	}
	return t.Flush()
}
