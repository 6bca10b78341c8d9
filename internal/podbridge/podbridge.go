// Package podbridge gives the bridge of the pods the address of the node's
// present subnet, when the node has another subnet than at the time when the
// bridge was made.
package podbridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"
	"flannel/subnet/env"
)

// Readdress looks at the bridge of this name in the current network namespace.
// Addresses inside the overlay network that are not the present subnet's are
// replaced by the one that is, as long as the bridge has no ports. With ports
// nothing is changed, and the addresses are returned. No such bridge is no
// error.
func Readdress(name string, e env.Env) (former []netip.Prefix, err error) {
	conn, err := rtnl.Dial(0)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer conn.Close()
	b, err := find(conn, name)
	if err != nil || b.index == 0 {
		return nil, err
	}
	have, err := addrs(conn, b.index)
	if err != nil {
		return nil, err
	}
	former = outdated(have, e)
	if len(former) == 0 || b.ports > 0 {
		return former, nil
	}
	return nil, replace(conn, b.index, former, e.Subnet)
}

// outdated lists the addresses that are ours, because they lie inside the
// network, and that the present subnet does not explain.
func outdated(have []netip.Prefix, e env.Env) []netip.Prefix {
	var list []netip.Prefix
	for _, a := range have {
		f := ipfam.Of(a.Addr())
		ours := slices.ContainsFunc(e.Network[f], func(n netip.Prefix) bool { return n.Contains(a.Addr()) })
		if ours && e.Subnet[f].IsValid() && a != e.Subnet[f] {
			list = append(list, a)
		}
	}
	return list
}

// bridge is a device with the number of its ports; index 0 is none.
type bridge struct {
	index uint32
	ports int
}

func find(conn *rtnl.Conn, name string) (bridge, error) {
	var b bridge
	ports := map[uint32]int{}
	err := conn.Dump(func(b *rtnl.Batch) {
		b.Begin(unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfInfomsg))
	}, func(m rtnl.Message) {
		if len(m.Body) < unix.SizeofIfInfomsg {
			return
		}
		index := rtnl.Uint32(m.Body[4:8])
		for typ, value := range rtnl.Attrs(m.Body[unix.SizeofIfInfomsg:]) {
			switch typ {
			case unix.IFLA_IFNAME:
				if rtnl.Text(value) == name {
					b.index = index
				}
			case unix.IFLA_MASTER:
				ports[rtnl.Uint32(value)]++
			}
		}
	})
	if err != nil {
		return bridge{}, fmt.Errorf("list devices: %w", err)
	}
	b.ports = ports[b.index]
	return b, nil
}

// addrs lists a device's addresses.
func addrs(conn *rtnl.Conn, index uint32) ([]netip.Prefix, error) {
	var list []netip.Prefix
	err := conn.Dump(func(b *rtnl.Batch) {
		b.Begin(unix.RTM_GETADDR, unix.NLM_F_DUMP, header(unix.AF_UNSPEC, 0, index))
	}, func(m rtnl.Message) {
		if len(m.Body) < unix.SizeofIfAddrmsg || rtnl.Uint32(m.Body[4:8]) != index {
			return
		}
		for typ, value := range rtnl.Attrs(m.Body[unix.SizeofIfAddrmsg:]) {
			// Without a peer, IPv4 has both attributes and IPv6 only this one.
			if a := rtnl.Addr(value); typ == unix.IFA_ADDRESS && a.IsValid() {
				list = append(list, netip.PrefixFrom(a, int(m.Body[1])))
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return list, nil
}

// replace adds the present addresses, then deletes the former ones. Another
// plugin may be doing the same.
func replace(conn *rtnl.Conn, index uint32, former []netip.Prefix, present ipfam.Pair[netip.Prefix]) error {
	var errs []error
	for f, p := range ipfam.Prefixes(present) {
		if !slices.ContainsFunc(former, func(a netip.Prefix) bool { return ipfam.Of(a.Addr()) == f }) {
			continue
		}
		err := conn.One(func(b *rtnl.Batch) {
			request(b, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, p)
			if f == ipfam.V6 {
				// An IPv6 address would be unusable for a second otherwise.
				b.Uint32(unix.IFA_FLAGS, unix.IFA_F_NODAD|unix.IFA_F_PERMANENT)
			}
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("add address %s: %w", p, err))
		}
	}
	for _, a := range former {
		err := conn.One(func(b *rtnl.Batch) { request(b, unix.RTM_DELADDR, 0, index, a) })
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("delete address %s: %w", a, err))
		}
	}
	return errors.Join(errs...)
}

func request(b *rtnl.Batch, typ, flags uint16, index uint32, p netip.Prefix) {
	b.Begin(typ, flags, header(ipfam.Of(p.Addr()).AF(), p.Bits(), index))
	b.Addr(unix.IFA_LOCAL, p.Addr())
	b.Addr(unix.IFA_ADDRESS, p.Addr())
}

// header is the kernel's struct ifaddrmsg.
func header(family, bits int, index uint32) []byte {
	h := []byte{byte(family), byte(bits), 0, unix.RT_SCOPE_UNIVERSE}
	return binary.NativeEndian.AppendUint32(h, index)
}
