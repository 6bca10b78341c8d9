package rtnl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NewHandle opens the library's connection in a namespace, for links, addresses
// and all else that is not a hot table. The zero namespace is the current one.
func NewHandle(namespace int) (handle *netlink.Handle, err error) {
	err = Inside(namespace, func() (err error) {
		// A kernel may lack the other families of netlink.
		handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return handle, nil
}

// Retry runs dumps again for as long as one of them ends with ErrInterrupted,
// but not forever: then that is the error.
func Retry(dumps func() error) (err error) {
	const attempts = 10
	for range attempts {
		if err = dumps(); !errors.Is(err, ErrInterrupted) {
			return err
		}
	}
	return err
}

// NetworkOf returns a network as the library has it; invalid for nil.
func NetworkOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// IPNet returns a network for the library.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// PrefixOf returns an address of this host with the length of its network, as
// the library has it; invalid if there is none.
func PrefixOf(a netlink.Addr) netip.Prefix {
	network := a.IPNet
	if network == nil {
		return netip.Prefix{}
	}
	ip, _ := netip.AddrFromSlice(network.IP)
	if a.Peer != nil {
		network = a.Peer
	}
	bits, _ := network.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), bits)
}

// AddrOf returns an address of this host for the library. Left to itself the
// library would add a broadcast address.
func AddrOf(dev int, p netip.Prefix) *netlink.Addr {
	return &netlink.Addr{
		LinkIndex: dev,
		IPNet:     IPNet(p),
		Broadcast: net.IPv4zero,
	}
}

// PutAddr gives a device an address of this host, which can be used at once:
// nobody is asked whether another host has it.
func PutAddr(handle *netlink.Handle, dev int, p netip.Prefix) error {
	a := AddrOf(dev, p)
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD | unix.IFA_F_PERMANENT
	}
	return handle.AddrReplace(nil, a)
}
