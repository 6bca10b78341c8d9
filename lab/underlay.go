package lab

import (
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/lab/node"
)

// buildUnderlay makes a bridge per link and the router with an interface on
// each. The bridges have no addresses: they are switches.
func (l *Lab) buildUnderlay() error {
	var err error
	if l.underlay, err = node.NewNetwork("underlay", nil); err != nil {
		return err
	}
	if l.Router, err = node.NewNetwork("router", nil); err != nil {
		return err
	}
	if err := enableForwarding(l.Router); err != nil {
		return err
	}
	for link := 1; link <= l.options.Links; link++ {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName(link), MTU: l.options.MTU, TxQLen: -1}}
		if err := addUp(l.underlay, bridge); err != nil {
			return err
		}
		c := cable{link: link, port: fmt.Sprintf("router%d", link), node: l.Router, name: fmt.Sprintf("link%d", link)}
		if err := l.connect(c); err != nil {
			return err
		}
		if err := addAddresses(l.Router.Handle, c.name, l.options.Families.addresses(link, routerNumber)); err != nil {
			return err
		}
	}
	return nil
}

func bridgeName(link int) string { return fmt.Sprintf("link%d", link) }

// cable is a pair of interfaces: port on the bridge of a link, name on a node.
type cable struct {
	link int
	port string
	node *node.Node
	name string
}

func (l *Lab) connect(c cable) error {
	h := l.underlay.Handle
	bridge, err := h.LinkByName(bridgeName(c.link))
	if err != nil {
		return fmt.Errorf("find link %d: %w", c.link, err)
	}
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: c.port, MTU: l.options.MTU, MasterIndex: bridge.Attrs().Index, TxQLen: -1})
	veth.PeerName = c.name
	veth.PeerMTU = uint32(l.options.MTU)
	veth.PeerHardwareAddr = hardwareAddr(c)
	veth.PeerNamespace = netlink.NsFd(c.node.NetNS().Fd())
	if err := addUp(l.underlay, veth); err != nil {
		return err
	}
	return setUp(c.node.Handle, c.name, true)
}

// hardwareAddr is the MAC of the node's end. It depends on the names alone: an
// interface that is made again has the one that other machines remember.
func hardwareAddr(c cable) net.HardwareAddr {
	h := fnv.New32a()
	fmt.Fprint(h, c.link, c.port, c.name)
	return append(net.HardwareAddr{0x02, 0x31}, h.Sum(nil)...)
}

func addUp(n *node.Node, link netlink.Link) error {
	name := link.Attrs().Name
	if err := n.Handle.LinkAdd(link); err != nil {
		return fmt.Errorf("add interface %s on %s: %w", name, n.Name, err)
	}
	return setUp(n.Handle, name, true)
}

func setUp(h *netlink.Handle, name string, up bool) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	set := h.LinkSetUp
	if !up {
		set = h.LinkSetDown
	}
	if err := set(link); err != nil {
		return fmt.Errorf("set interface %s up=%t: %w", name, up, err)
	}
	return nil
}

// addAddresses puts addresses on an interface. IPv6 addresses are usable at
// once, without the second of duplicate address detection.
func addAddresses(h *netlink.Handle, name string, addrs ipfam.Pair[netip.Prefix]) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	for f, a := range ipfam.Prefixes(addrs) {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), f.Bits())}}
		if f == ipfam.V6 {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("add address %s to %s: %w", a, name, err)
		}
	}
	return nil
}

// addDefaultRoutes adds a default route for each gateway. Hosts and pods call
// their interface alike.
func addDefaultRoutes(h *netlink.Handle, gateways ipfam.Pair[netip.Prefix]) error {
	link, err := h.LinkByName(Uplink)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", Uplink, err)
	}
	for f, gw := range ipfam.Prefixes(gateways) {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Family: f.AF(), Gw: gw.Addr().AsSlice()}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("add default route via %s: %w", gw.Addr(), err)
		}
	}
	return nil
}

func enableForwarding(n *node.Node) error {
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := n.Sysctl(name, "1"); err != nil {
			return fmt.Errorf("enable forwarding on %s: %w", n.Name, err)
		}
	}
	return nil
}
