package uplink

import (
	"encoding/binary"
	"net/netip"

	"flannel/internal/ipfam"

	"golang.org/x/sys/unix"
)

// route is what this package needs to know of a kernel route.
type route struct {
	dst      netip.Prefix
	link     int // 0 when the route has none or several
	gateway  bool
	metric   int
	table    int
	protocol int
	unicast  bool
	// first is the interface of the first of several next hops.
	first int
}

// direct reports whether the destination is on the link of an interface.
func (r route) direct(index int) bool { return r.unicast && !r.gateway && r.link == index }

// parseRoute reads the body of a route message (rtmsg and attributes). It
// reports false for what is not a route of an IP family.
func parseRoute(b []byte) (route, bool) {
	if len(b) < unix.SizeofRtMsg {
		return route{}, false
	}
	family, ok := familyOf(b[0])
	cloned := binary.NativeEndian.Uint32(b[8:])&unix.RTM_F_CLONED != 0
	if bits := int(b[1]); !ok || cloned || bits > family.Bits() {
		return route{}, false
	}
	r := route{table: int(b[4]), protocol: int(b[5]), unicast: b[7] == unix.RTN_UNICAST}
	dst := unspecified(family)
	eachAttr(b[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		switch {
		case kind == unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(value)
		case kind == unix.RTA_GATEWAY || kind == unix.RTA_VIA:
			r.gateway = true
		case kind == unix.RTA_MULTIPATH:
			r.gateway = true
			r.first = firstHop(value)
		case len(value) < 4:
		case kind == unix.RTA_OIF:
			r.link = int(binary.NativeEndian.Uint32(value))
		case kind == unix.RTA_PRIORITY:
			r.metric = int(binary.NativeEndian.Uint32(value))
		case kind == unix.RTA_TABLE:
			r.table = int(binary.NativeEndian.Uint32(value))
		}
	})
	if dst.BitLen() != family.Bits() {
		return route{}, false
	}
	if r.first == 0 {
		r.first = r.link
	}
	r.dst = netip.PrefixFrom(dst, int(b[1])).Masked()
	return r, true
}

// firstHop returns the interface of the first struct rtnexthop.
func firstHop(b []byte) int {
	if len(b) < unix.SizeofRtNexthop {
		return 0
	}
	return int(binary.NativeEndian.Uint32(b[4:]))
}

func familyOf(af byte) (ipfam.Family, bool) {
	for _, f := range ipfam.All() {
		if int(af) == f.AF() {
			return f, true
		}
	}
	return 0, false
}

func unspecified(f ipfam.Family) netip.Addr {
	return ipfam.Pair[netip.Addr]{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[f]
}

// eachAttr visits the attributes of a netlink message.
func eachAttr(b []byte, visit func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return
		}
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		visit(kind, b[unix.SizeofRtAttr:size])
		b = b[min(align(size), len(b)):]
	}
}

// align rounds up to the boundary of netlink messages and attributes.
func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
