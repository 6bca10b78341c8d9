package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"flannel/lab/node"
)

// bareVeth makes two networks that a veth pair connects: what pods would have
// without any overlay. The caller closes both.
func bareVeth() (from, to end, err error) {
	for i, e := range []*end{&from, &to} {
		e.addr = netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		if e.node, err = node.NewNetwork(fmt.Sprintf("veth%d", i), nil); err != nil {
			return from, to, errors.Join(err, closeEnds(from, to))
		}
	}
	if err := connect(from, to); err != nil {
		return from, to, errors.Join(fmt.Errorf("make a veth pair: %w", err), closeEnds(from, to))
	}
	return from, to, nil
}

func connect(from, to end) error {
	const device = "eth0"
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: device, TxQLen: -1})
	veth.PeerName = device
	veth.PeerNamespace = netlink.NsFd(to.node.NetNS().Fd())
	if err := from.node.Handle.LinkAdd(veth); err != nil {
		return err
	}
	for _, e := range []end{from, to} {
		link, err := e.node.Handle.LinkByName(device)
		if err != nil {
			return err
		}
		address := &netlink.Addr{IPNet: &net.IPNet{IP: e.addr.AsSlice(), Mask: net.CIDRMask(24, 32)}}
		if err := errors.Join(e.node.Handle.LinkSetUp(link), e.node.Handle.AddrAdd(link, address)); err != nil {
			return err
		}
	}
	return nil
}

func closeEnds(ends ...end) error {
	var errs []error
	for _, e := range ends {
		if e.node != nil {
			errs = append(errs, e.node.Close())
		}
	}
	return errors.Join(errs...)
}
