package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/lab"
)

const subnetsPrefix = lab.DefaultPrefix + "/subnets/"

// record is what a host has published.
type record struct {
	subnet ipfam.Pair[netip.Prefix]
	public ipfam.Pair[netip.Addr]
	mac    ipfam.Pair[string]
}

// recordKey is the key of these subnets, without the prefix of etcd.
func recordKey(s ipfam.Pair[netip.Prefix]) string {
	dash := func(p netip.Prefix) string { return strings.ReplaceAll(p.String(), "/", "-") }
	return subnetsPrefix + dash(s[ipfam.V4]) + "&" + dash(s[ipfam.V6])
}

// records reads what the hosts have published under their present subnets.
func records(ctx context.Context, l *lab.Lab) ([]record, error) {
	stored, err := l.Etcd.List(ctx, subnetsPrefix)
	if err != nil {
		return nil, err
	}
	out := make([]record, len(l.Hosts))
	for i, h := range l.Hosts {
		if out[i].subnet, err = h.Subnet(); err != nil {
			return nil, err
		}
		var v struct {
			PublicIP, PublicIPv6       netip.Addr
			BackendData, BackendV6Data struct{ VtepMAC string }
		}
		text, ok := stored[recordKey(out[i].subnet)]
		if !ok {
			return nil, fmt.Errorf("%s has no record %s", h.Name, recordKey(out[i].subnet))
		}
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return nil, fmt.Errorf("record of %s: %w", h.Name, err)
		}
		out[i].public = ipfam.Pair[netip.Addr]{v.PublicIP, v.PublicIPv6}
		out[i].mac = ipfam.Pair[string]{v.BackendData.VtepMAC, v.BackendV6Data.VtepMAC}
		for f, a := range out[i].public.Each() {
			if a != h.Addr(f) {
				return nil, fmt.Errorf("%s has published %s, its uplink has %s", h.Name, a, h.Addr(f))
			}
		}
	}
	return out, nil
}

// What backends name and take, per family. udp has one device for both.
var (
	vxlanDevices = ipfam.Pair[string]{"flannel.1", "flannel-v6.1"}
	overhead     = ipfam.Pair[int]{50, 70}
	networks     = ipfam.Pair[string]{"10.244.0.0/16", "fd00:10:244::/48"}
)

const (
	udpDevice   = "flannel0"
	udpOverhead = 48
	udpMetric   = 100
)

// wanted is the state of host number own: what its own record, its uplink and
// the records of the others make of it.
func wanted(backend string, uplinkMTU, own int, all []record) string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	me := all[own]
	if backend == udp {
		add("device %s up mtu %d tuntap", udpDevice, uplinkMTU-udpOverhead)
	}
	for _, f := range ipfam.All() {
		dev := vxlanDevices[f]
		if backend == udp {
			add("address %s %s/%d", udpDevice, me.subnet[f].Addr(), f.Bits())
			add("route %s dev %s metric %d", networks[f], udpDevice, udpMetric)
			continue
		}
		if backend == vxlan {
			add("device %s up mtu %d mac %s vni 1 local %s", dev, uplinkMTU-overhead[f], me.mac[f], me.public[f])
			add("address %s %s/%d", dev, me.subnet[f].Addr(), f.Bits())
		}
		for i, peer := range all {
			switch vtep := peer.subnet[f].Addr(); {
			case i == own:
			case backend == vxlan:
				add("route %s via %s dev %s onlink", peer.subnet[f], vtep, dev)
				add("neighbour %s %s %s", dev, vtep, peer.mac[f])
				add("fdb %s %s %s", dev, peer.mac[f], peer.public[f])
			default:
				add("route %s via %s dev %s", peer.subnet[f], peer.public[f], lab.Uplink)
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
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
		if !strings.HasPrefix(name, "flannel") {
			continue
		}
		up := "down"
		if link.Attrs().Flags&net.FlagUp != 0 {
			up = "up"
		}
		kind := link.Type()
		if v, ok := link.(*netlink.Vxlan); ok {
			kind = fmt.Sprintf("mac %s vni %d local %s", v.HardwareAddr, v.VxlanId, v.SrcAddr)
		}
		add("device %s %s mtu %d %s", name, up, link.Attrs().MTU, kind)
		if err := addEntries(h, link, add); err != nil && !errors.Is(err, unix.ENODEV) {
			return "", err
		}
	}
	for _, f := range ipfam.All() {
		list, err := h.RouteListFiltered(f.AF(), &netlink.Route{Protocol: kernel.RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return "", fmt.Errorf("list routes: %w", err)
		}
		for _, r := range list {
			add("%s", describe(&r, names[r.LinkIndex]))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n", nil
}

func describe(r *netlink.Route, dev string) string {
	if r.Gw == nil {
		return fmt.Sprintf("route %s dev %s metric %d", r.Dst, dev, r.Priority)
	}
	text := fmt.Sprintf("route %s via %s dev %s", r.Dst, r.Gw, dev)
	if r.Flags&int(netlink.FLAG_ONLINK) != 0 {
		text += " onlink"
	}
	return text
}

// addEntries adds a device's addresses, permanent neighbours and FDB entries.
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
			return fmt.Errorf("list neighbours: %w", err)
		}
		for _, n := range list {
			switch {
			case n.State&netlink.NUD_PERMANENT == 0:
			case family == unix.AF_BRIDGE:
				add("fdb %s %s %s", name, n.HardwareAddr, n.IP)
			default:
				add("neighbour %s %s %s", name, n.IP, n.HardwareAddr)
			}
		}
	}
	return nil
}

// difference shows which lines are missing and which are too many.
func difference(want, have string) string {
	var b strings.Builder
	missing := func(sign, from, in string) {
		lines := strings.Split(in, "\n")
		for line := range strings.Lines(from) {
			if line = strings.TrimSuffix(line, "\n"); !slices.Contains(lines, line) {
				fmt.Fprintf(&b, "%s %s\n", sign, line)
			}
		}
	}
	missing("-", want, have)
	missing("+", have, want)
	return b.String()
}

// plant puts what is not ours on a host.
const plant = `set -e
ip link add foreign0 type veth peer name foreign1
ip link set foreign1 up
ip link set foreign0 up
ip addr add 203.0.113.1/24 dev foreign0
ip addr add 2001:db8::1/64 dev foreign0 nodad
ip link add foreignvx type vxlan id 4242 dstport 4790 local 203.0.113.1 dev foreign0
ip link set foreignvx up
bridge fdb add 02:00:00:00:42:42 dev foreignvx dst 203.0.113.9
ip neigh add 203.0.113.9 lladdr 02:00:00:00:42:43 nud permanent dev foreign0
ip -6 neigh add 2001:db8::9 lladdr 02:00:00:00:42:43 nud permanent dev foreign0
ip route add 198.51.100.0/24 via 203.0.113.2
ip route add 10.99.0.0/16 via 203.0.113.2 proto static
ip route add 198.51.100.0/24 via 203.0.113.2 table 100
ip -6 route add 2001:db8:1::/48 via 2001:db8::2
ip rule add from 203.0.113.0/24 lookup 100 priority 1000
ip -6 rule add from 2001:db8::/64 lookup 100 priority 1000
nft 'table inet foreign { chain in { type filter hook input priority 10; ip saddr 198.51.100.7 drop; }; }'
`

// show prints all of that.
const show = `
ip -o addr show dev foreign0 | sed 's/valid_lft.*//'
ip -o link show foreign0; ip -o -d link show foreignvx
bridge fdb show dev foreignvx
ip neigh show dev foreign0 nud permanent; ip -6 neigh show dev foreign0 nud permanent
ip route show dev foreign0 | grep -v default; ip route show table 100; ip -6 route show dev foreign0 proto boot
ip rule; ip -6 rule
nft list table inet foreign`

// rules prints our packet filter rules.
const rules = `(iptables-save; ip6tables-save) | grep -e '^-A.*FLANNEL'`
