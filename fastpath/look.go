package fastpath

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/backend"
	"flannel/kernel"
	"flannel/kernel/rtnl"
)

// lookEvery is how often the host is looked at although no event asks for it:
// programs of others that are attached to a device cause none.
const lookEvery = 10 * time.Second

// errNothing means that there is nothing to carry yet.
var errNothing = errors.New("no peers, or no bridge yet")

// look reads what the programs depend on.
type look struct {
	namespace int
	handle    *netlink.Handle
	// xfrm is nil if the kernel has no IPsec.
	xfrm *netlink.Handle
}

func newLook(namespace int) (*look, error) {
	handle, err := rtnl.NewHandle(namespace)
	if err != nil {
		return nil, err
	}
	l := &look{namespace: namespace, handle: handle}
	err = rtnl.Inside(namespace, func() (err error) {
		l.xfrm, err = netlink.NewHandle(unix.NETLINK_XFRM)
		return err
	})
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		l.xfrm, err = nil, nil
	}
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("open netlink of IPsec: %w", err)
	}
	return l, nil
}

// Close releases the sockets.
func (l *look) Close() {
	l.handle.Close()
	if l.xfrm != nil {
		l.xfrm.Close()
	}
}

// setup is what the programs are loaded for.
type setup struct {
	uplink, bridge int
	bridgeMAC      kernel.MAC
	podMTU         int
	wires          wires
	ports          [2]uint16
}

// setup returns what to load the programs for: errNothing if there are no peers of
// theirs, or no bridge of pods.
func (l *look) setup(o Options, status []backend.PeerStatus) (s setup, err error) {
	if s.uplink, err = s.wires.from(status); err != nil {
		return s, err
	}
	if s.uplink == 0 {
		return s, errNothing
	}
	for i := range s.wires {
		w := &s.wires[i]
		if w.wire.Dev == "" {
			continue
		}
		device, err := l.handle.LinkByName(w.wire.Dev)
		if err != nil {
			return s, find("the device "+w.wire.Dev, err)
		}
		w.index = device.Attrs().Index
	}
	bridge, err := l.handle.LinkByName(o.Bridge)
	if err != nil {
		return s, find("the bridge "+o.Bridge, err)
	}
	if b, ok := bridge.(*netlink.Bridge); !ok || b.VlanFiltering != nil && *b.VlanFiltering {
		return s, fmt.Errorf("%s is not a bridge without VLANs", o.Bridge)
	}
	uplink, err := l.handle.LinkByIndex(s.uplink)
	if err != nil {
		return s, find("the uplink", err)
	}
	switch a := uplink.Attrs(); {
	case a.EncapType != "ether":
		return s, fmt.Errorf("the uplink %s is of type %q: only Ethernet is supported", a.Name, a.EncapType)
	case a.MasterIndex != 0:
		return s, fmt.Errorf("the uplink %s belongs to another device, for example a VRF, which may route otherwise", a.Name)
	}
	if err := errors.Join(l.policies(), l.events()); err != nil {
		return s, err
	}
	s.bridge, s.podMTU = bridge.Attrs().Index, bridge.Attrs().MTU
	copy(s.bridgeMAC[:], bridge.Attrs().HardwareAddr)
	s.ports, err = l.ports()
	return s, err
}

// from sets the wires of these peers, and returns the index of their uplink; zero if
// there are none.
func (w *wires) from(status []backend.PeerStatus) (uplink int, err error) {
	for _, p := range status {
		wire, ok := p.Carried.Wire()
		format := formatOf(wire)
		if !ok || format == bpfFormatNONE {
			continue
		}
		if format == bpfFormatPLAIN {
			wire.Local = netip.Addr{} // that of either family
		}
		if uplink == 0 {
			uplink = wire.Uplink
		}
		if known := w[format].wire; wire.Uplink != uplink || known != (backend.Wire{}) && known != wire {
			return 0, errors.New("the peers are reached in too many ways")
		}
		w[format].wire = wire
	}
	return uplink, nil
}

// find returns errNothing for what may come yet.
func find(what string, err error) error {
	if missing(err) {
		return errNothing
	}
	return fmt.Errorf("find %s: %w", what, err)
}

// policies returns an error if rules of the host, which the programs cannot follow,
// may treat the packets between the hosts in another way.
func (l *look) policies() error {
	var rules []netlink.Rule
	err := rtnl.Retry(func() (err error) { rules, err = l.handle.RuleList(netlink.FAMILY_ALL); return err })
	if err != nil {
		return fmt.Errorf("list the rules of routing: %w", err)
	}
	for _, r := range rules {
		if r.Mark != 0 || r.Mask != nil {
			return fmt.Errorf("routing depends on the mark of packets: `ip rule` shows the rule with priority %d", r.Priority)
		}
	}
	if l.xfrm == nil {
		return nil
	}
	var protected []netlink.XfrmPolicy
	err = rtnl.Retry(func() (err error) { protected, err = l.xfrm.XfrmPolicyList(netlink.FAMILY_ALL); return err })
	if err != nil {
		return fmt.Errorf("list the policies of IPsec: %w", err)
	}
	if len(protected) > 0 {
		return errors.New("the host has policies of IPsec: `ip xfrm policy` shows them")
	}
	return nil
}

func missing(err error) bool {
	var not netlink.LinkNotFoundError
	return errors.As(err, &not) || errors.Is(err, unix.ENODEV)
}

// ports returns the range from which the kernel's vxlan device takes its source
// ports: the first, and how far it goes.
func (l *look) ports() (ports [2]uint16, err error) {
	var first, last uint16
	if err := l.sysctl("net/ipv4/ip_local_port_range", &first, &last); err != nil {
		return ports, err
	}
	return [2]uint16{first, last - first}, nil
}

// events returns an error if conntrack reports nothing.
func (l *look) events() error {
	var mode int
	if err := l.sysctl("net/netfilter/nf_conntrack_events", &mode); err != nil {
		return fmt.Errorf("conntrack: %w", err)
	}
	if mode == 0 {
		return errors.New("conntrack sends no events: set net.netfilter.nf_conntrack_events to 2")
	}
	return nil
}

// sysctl reads the numbers in a setting of the namespace.
func (l *look) sysctl(name string, numbers ...any) error {
	return rtnl.Inside(l.namespace, func() error {
		text, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			return err
		}
		if _, err := fmt.Sscan(string(text), numbers...); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		return nil
	})
}

// pods are the devices of pods by index, and which pod has which address.
type pods struct {
	devices map[uint32]string
	addrs   map[netip.Addr]kernel.MAC
}

// pods lists the devices of pods: plain veths on the bridge.
func (l *look) pods(bridge int) (pods, error) {
	found := pods{map[uint32]string{}, map[netip.Addr]kernel.MAC{}}
	var links []netlink.Link
	var neighbors []netlink.Neigh
	var qdiscs []netlink.Qdisc
	err := rtnl.Retry(func() (err error) {
		if links, err = l.handle.LinkList(); err != nil {
			return err
		}
		if qdiscs, err = l.handle.QdiscList(nil); err != nil {
			return err
		}
		neighbors, err = l.handle.NeighList(bridge, netlink.FAMILY_ALL)
		return err
	})
	if err != nil {
		return found, err
	}
	// Something shapes or filters what passes, as the bandwidth plugin does.
	touched := map[int]bool{}
	for _, q := range qdiscs {
		if q.Type() != "noqueue" {
			touched[q.Attrs().LinkIndex] = true
		}
	}
	for _, each := range links {
		if a := each.Attrs(); each.Type() == "veth" && a.MasterIndex == bridge && !touched[a.Index] {
			found.devices[uint32(a.Index)] = a.Name
		}
	}
	for _, n := range neighbors {
		a, ok := netip.AddrFromSlice(n.IP)
		if ok && len(n.HardwareAddr) == len(kernel.MAC{}) && n.State&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) == 0 {
			found.addrs[a.Unmap()] = kernel.MAC(n.HardwareAddr)
		}
	}
	return found, nil
}

// foreign reports whether a device has tcx programs beside these.
func (l *look) foreign(device int, ours map[ebpf.ProgramID]bool) (found bool, err error) {
	err = rtnl.Inside(l.namespace, func() error {
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			result, err := link.QueryPrograms(link.QueryOptions{Target: device, Attach: at})
			if err != nil {
				return err
			}
			for _, p := range result.Programs {
				found = found || !ours[p.ID]
			}
		}
		return nil
	})
	return found, err
}
