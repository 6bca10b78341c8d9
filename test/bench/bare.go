package main

import (
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/lab/node"
)

// bareLoop makes a network namespace with a vxlan device and returns how long
// the entries of n peers take, one netlink call after the other on one handle:
// what no program can do without. Like the daemon it spreads the routes over 256
// metrics.
func bareLoop(n int) (took time.Duration, err error) {
	space, err := node.NewNetwork("bare", nil)
	if err != nil {
		return 0, err
	}
	defer space.Close()
	dev, err := bareDevice(space.Handle)
	if err != nil {
		return 0, fmt.Errorf("make the device of the bare loop: %w", err)
	}
	start := time.Now()
	for i := range n {
		if err := bareEntries(space.Handle, dev, nthPeer(i), 1+i%256); err != nil {
			return 0, fmt.Errorf("bare loop: %w", err)
		}
	}
	return time.Since(start), nil
}

func bareDevice(h *netlink.Handle) (int, error) {
	link := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: device}, VxlanId: 1, Port: 8472, SrcAddr: net.IPv4(127, 0, 0, 1)}
	if err := h.LinkAdd(link); err != nil {
		return 0, err
	}
	if err := h.LinkSetUp(link); err != nil {
		return 0, err
	}
	// Routes via a gateway need an address on the device.
	own := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 1, 0, 0), Mask: net.CIDRMask(32, 32)}}
	return link.Attrs().Index, h.AddrAdd(link, own)
}

func bareEntries(h *netlink.Handle, dev int, p peer, metric int) error {
	err := h.NeighSet(&netlink.Neigh{
		LinkIndex: dev, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF,
		IP: p.public.AsSlice(), HardwareAddr: p.mac,
	})
	if err != nil {
		return err
	}
	gateway := net.IP(p.vtep().AsSlice())
	err = h.NeighSet(&netlink.Neigh{LinkIndex: dev, State: netlink.NUD_PERMANENT, IP: gateway, HardwareAddr: p.mac})
	if err != nil {
		return err
	}
	return h.RouteReplace(&netlink.Route{
		LinkIndex: dev, Gw: gateway, Flags: int(netlink.FLAG_ONLINK), Priority: metric,
		Dst: &net.IPNet{IP: gateway, Mask: net.CIDRMask(p.subnet.Bits(), 32)},
	})
}
