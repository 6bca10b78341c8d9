package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"

	"flannel/kernel/rtnl"

	"golang.org/x/sys/unix"
)

// Host is what this host has beside the overlay, or is part of it.
type Host struct {
	// Addrs are the addresses of all interfaces with their prefix lengths.
	Addrs []HostAddr
	// Gateways are those of the default routes in the main table.
	Gateways []netip.Addr
}

// HostAddr is an address of an interface.
type HostAddr struct {
	Addr netip.Prefix
	Dev  string
}

// Host reads the addresses and default gateways of this host.
func (r *reconciler) Host(ctx context.Context) (Host, error) {
	if err := ctx.Err(); err != nil {
		return Host{}, err
	}
	return r.edge.host()
}

// host reads again what the kernel says may be incomplete.
func (t netlinkTables) host(links linkTable) (h Host, err error) {
	const attempts = 5
	for range attempts {
		if h, err = t.readHost(links); !errors.Is(err, rtnl.ErrInterrupted) {
			return h, err
		}
	}
	return h, err
}

func (t netlinkTables) readHost(links linkTable) (h Host, err error) {
	names := map[int]string{}
	if err := links.List(func(l link) { names[l.index] = l.name }); err != nil {
		return h, err
	}
	err = t.conn.Dump(func(b *rtnl.Batch) {
		b.Begin(unix.RTM_GETADDR, unix.NLM_F_DUMP, addrHeader(unix.AF_UNSPEC, 0, 0))
	}, func(m rtnl.Message) {
		if k, ok := parseAddr(m.Body); ok {
			h.Addrs = append(h.Addrs, HostAddr{k.prefix, names[k.dev]})
		}
	})
	if err != nil {
		return h, err
	}
	err = t.dumpRouteBodies(unix.RTPROT_UNSPEC, func(body []byte) {
		if k, _, ok := parseRoute(body); ok && k.dst.Bits() == 0 {
			h.Gateways = append(h.Gateways, gateways(body[unix.SizeofRtMsg:])...)
		}
	})
	return h, err
}

// gateways returns those of the attributes of a route with one next hop or with
// several.
func gateways(attrs []byte) (list []netip.Addr) {
	for typ, value := range rtnl.Attrs(attrs) {
		switch typ {
		case unix.RTA_GATEWAY:
			list = append(list, rtnl.Addr(value))
		case unix.RTA_MULTIPATH:
			for len(value) >= unix.SizeofRtNexthop {
				n := int(binary.NativeEndian.Uint16(value))
				if n < unix.SizeofRtNexthop || n > len(value) {
					break
				}
				list = append(list, gateways(value[unix.SizeofRtNexthop:n])...)
				value = value[min((n+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(value)):]
			}
		}
	}
	return list
}
