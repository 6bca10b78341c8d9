package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/kernel"
)

// overlayState returns what the overlay has in the kernel of a host, a sorted
// line per entry, without what changes when a device is made again. Each line
// that ends with an address of a host has a blank before it.
func overlayState(h *netlink.Handle) (string, error) {
	var b strings.Builder
	links, err := h.LinkList()
	if err != nil {
		return "", fmt.Errorf("list devices: %w", err)
	}
	for _, link := range links {
		vxlan, ok := link.(*netlink.Vxlan)
		if !ok {
			continue
		}
		up := "down"
		if vxlan.Flags&unix.IFF_UP != 0 {
			up = "up"
		}
		fmt.Fprintf(&b, "device %s %s mtu %d mac %s vni %d local %s\n",
			vxlan.Name, up, vxlan.MTU, vxlan.HardwareAddr, vxlan.VxlanId, vxlan.SrcAddr)
		err := errors.Join(writeAddrs(&b, h, link), writeNeighbors(&b, h, link), writeRoutes(&b, h, link))
		if errors.As(err, &netlink.LinkNotFoundError{}) || errors.Is(err, unix.ENODEV) {
			continue // it vanished meanwhile
		}
		if err != nil {
			return "", err
		}
	}
	return sortLines(b.String()), nil
}

// writeAddrs leaves out the addresses that the kernel makes by itself.
func writeAddrs(b *strings.Builder, h *netlink.Handle, link netlink.Link) error {
	addrs, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() {
			fmt.Fprintf(b, "address %s %s\n", link.Attrs().Name, a.IPNet)
		}
	}
	return nil
}

// writeNeighbors writes the permanent neighbors and FDB entries.
func writeNeighbors(b *strings.Builder, h *netlink.Handle, link netlink.Link) error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		list, err := h.NeighList(link.Attrs().Index, family)
		if err != nil {
			return fmt.Errorf("list neighbors: %w", err)
		}
		for _, n := range list {
			if n.State&netlink.NUD_PERMANENT != 0 {
				fmt.Fprintf(b, "neighbor %d %s %s %s\n", family, link.Attrs().Name, n.HardwareAddr, n.IP)
			}
		}
	}
	return nil
}

func writeRoutes(b *strings.Builder, h *netlink.Handle, link netlink.Link) error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := h.RouteListFiltered(family,
			&netlink.Route{LinkIndex: link.Attrs().Index, Protocol: kernel.RouteProtocol},
			netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, r := range list {
			fmt.Fprintf(b, "route %s via %s dev %s\n", r.Dst, r.Gw, link.Attrs().Name)
		}
	}
	return nil
}

func sortLines(text string) string {
	lines := slices.Sorted(strings.Lines(text))
	return strings.Join(lines, "")
}
