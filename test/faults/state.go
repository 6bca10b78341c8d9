package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/lab"
)

// What backends name and take, per family. udp has one device for both.
var (
	vxlanDevices = ipfam.Pair[string]{"flannel.1", "flannel-v6.1"}
	overhead     = ipfam.Pair[int]{50, 70}
	networks     = ipfam.Pair[string]{"10.244.0.0/16", "fd00:10:244::/48"}
)

const (
	udpDevice   = "flannel0"
	vxlanPort   = 8472
	udpOverhead = 48
	udpMetric   = 100

	// devicePrefix is what the names of all devices begin with.
	devicePrefix = "flannel"
)

// peerMetric is the metric of the route to a peer's subnet: IPv6 has the kernel's
// default, IPv4 the low byte of the number that the subnet has among those of its
// length, plus one.
func peerMetric(subnet netip.Prefix) int {
	if !subnet.Addr().Is4() {
		return 1024
	}
	a := subnet.Addr().As4()
	return 1 + int(binary.BigEndian.Uint32(a[:])>>(32-subnet.Bits()))%256
}

// wanted is the state of host number own: what its own record, its uplink and
// the records of the others make of it.
func wanted(backend string, uplink *netlink.LinkAttrs, own int, all []record) string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	me := all[own]
	if backend == udp {
		add("device %s up mtu %d tuntap", udpDevice, uplink.MTU-udpOverhead)
	}
	for _, f := range ipfam.All() {
		dev := vxlanDevices[f]
		if backend == udp {
			add("address %s %s/%d", udpDevice, me.subnet[f].Addr(), f.Bits())
			add("route %s dev %s metric %d", networks[f], udpDevice, udpMetric)
			continue
		}
		if backend == vxlan {
			add("device %s up mtu %d mac %s vni 1 local %s port %d uplink %d learning false gbp false",
				dev, uplink.MTU-overhead[f], me.mac[f], me.public[f], vxlanPort, uplink.Index)
			add("address %s %s/%d", dev, me.subnet[f].Addr(), f.Bits())
		}
		for _, peer := range all {
			switch vtep := peer.subnet[f].Addr(); {
			case !peer.usedBy(own, f):
			case backend == vxlan:
				add("route %s via %s dev %s metric %d onlink", peer.subnet[f], vtep, dev, peerMetric(peer.subnet[f]))
				add("neighbor %s %s %s", dev, vtep, peer.mac[f])
				add("fdb %s %s %s", dev, peer.mac[f], peer.public[f])
			default:
				add("route %s via %s dev %s metric %d", peer.subnet[f], peer.public[f], lab.Uplink, peerMetric(peer.subnet[f]))
			}
		}
	}
	return sortedText(lines)
}

// actual is the same of the kernel.
func actual(h *netlink.Handle) (string, error) {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	links, err := h.LinkList()
	if err != nil {
		return "", err
	}
	names := map[int]string{}
	for _, link := range links {
		name := link.Attrs().Name
		names[link.Attrs().Index] = name
		if !strings.HasPrefix(name, devicePrefix) {
			continue
		}
		up := "down"
		if link.Attrs().Flags&net.FlagUp != 0 {
			up = "up"
		}
		kind := link.Type()
		if v, ok := link.(*netlink.Vxlan); ok {
			kind = fmt.Sprintf("mac %s vni %d local %s port %d uplink %d learning %v gbp %v",
				v.HardwareAddr, v.VxlanId, v.SrcAddr, v.Port, v.VtepDevIndex, v.Learning, v.GBP)
		}
		add("device %s %s mtu %d %s", name, up, link.Attrs().MTU, kind)
		if err := addEntries(h, link, add); err != nil && !errors.Is(err, unix.ENODEV) {
			return "", err
		}
	}
	for _, f := range ipfam.All() {
		// Of all tables.
		list, err := h.RouteListFiltered(f.AF(), &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return "", fmt.Errorf("list routes: %w", err)
		}
		for _, r := range list {
			dev := names[r.LinkIndex]
			// What the kernel makes itself follows from the addresses.
			onOurs := strings.HasPrefix(dev, devicePrefix) && r.Protocol != unix.RTPROT_KERNEL
			if onOurs || r.Protocol == kernel.RouteProtocol {
				add("%s", describe(&r, dev))
			}
		}
	}
	return sortedText(lines), nil
}

// describe is a route as text. What every route of ours has is left out.
func describe(r *netlink.Route, dev string) string {
	text := fmt.Sprintf("route %s dev %s metric %d", r.Dst, dev, r.Priority)
	if r.Gw != nil {
		text = fmt.Sprintf("route %s via %s dev %s metric %d", r.Dst, r.Gw, dev, r.Priority)
	}
	if r.Flags&int(netlink.FLAG_ONLINK) != 0 {
		text += " onlink"
	}
	if r.Protocol != kernel.RouteProtocol {
		text += fmt.Sprint(" proto ", r.Protocol)
	}
	if r.Table != unix.RT_TABLE_MAIN {
		text += fmt.Sprint(" table ", r.Table)
	}
	return text
}

// addEntries adds a device's addresses, permanent neighbors and FDB entries.
func addEntries(h *netlink.Handle, link netlink.Link, add func(string, ...any)) error {
	name := link.Attrs().Name
	addrs, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() {
			add("address %s %s", name, a.IPNet)
		}
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		list, err := h.NeighList(link.Attrs().Index, family)
		if err != nil {
			return fmt.Errorf("list neighbors: %w", err)
		}
		for _, n := range list {
			switch {
			case n.State&netlink.NUD_PERMANENT == 0:
			case family == unix.AF_BRIDGE:
				add("fdb %s %s %s", name, n.HardwareAddr, n.IP)
			default:
				add("neighbor %s %s %s", name, n.IP, n.HardwareAddr)
			}
		}
	}
	return nil
}
