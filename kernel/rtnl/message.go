package rtnl

import (
	"encoding/binary"
	"iter"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// The decoders read the body of a message, which begins with the family header.
// They accept any bytes; ok is false when a message is damaged or about
// something else.

// Route is a route of either family.
type Route struct {
	Dst netip.Prefix
	// Gateway and Dev are zero if the route has none, or several next hops.
	Gateway netip.Addr
	Dev     int
	Metric  int
	Table   int
	// Protocol and Type are RTPROT_... and RTN_... of rtnetlink(7).
	Protocol, Type, TOS uint8
	// Flags are RTM_F_... and RTNH_F_...
	Flags uint32
	// Via means that the gateway is of another family than Dst.
	Via bool
	// Indirect means that a nexthop object or an encapsulation, which are not
	// decoded, has a part in where the route leads.
	Indirect bool

	hops []byte // valid until the next read
}

// ParseRoute decodes messages of type RTM_NEWROUTE and RTM_DELROUTE.
func ParseRoute(body []byte) (r Route, ok bool) {
	if len(body) < unix.SizeofRtMsg {
		return r, false
	}
	family, bits := body[0], int(body[1])
	r.Table, r.TOS, r.Protocol, r.Type = int(body[4]), body[3], body[5], body[7]
	r.Flags = Uint32(body[8:])
	dst := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	length := dst.BitLen()
	for typ, value := range Attrs(body[unix.SizeofRtMsg:]) {
		switch typ {
		case unix.RTA_TABLE:
			r.Table = int(Uint32(value))
		case unix.RTA_DST:
			dst = Addr(value)
		case unix.RTA_GATEWAY:
			r.Gateway = Addr(value)
		case unix.RTA_OIF:
			r.Dev = int(Uint32(value))
		case unix.RTA_PRIORITY:
			r.Metric = int(Uint32(value))
		case unix.RTA_MULTIPATH:
			r.hops = value
		case unix.RTA_VIA:
			r.Via = true
		case rtaNextHopID, unix.RTA_ENCAP:
			r.Indirect = true
		}
	}
	r.Dst = netip.PrefixFrom(dst, bits)
	return r, (family == unix.AF_INET || family == unix.AF_INET6) && dst.BitLen() == length && r.Dst.IsValid()
}

// rtaNextHopID is RTA_NH_ID of linux/rtnetlink.h.
const rtaNextHopID = 30

// Multipath reports whether the route has several next hops.
func (r Route) Multipath() bool { return r.hops != nil }

// NextHop is one of the ways in which a route leads to its destination.
type NextHop struct {
	Gateway netip.Addr // of the family of the destination
	Dev     int
}

// NextHops visits the next hops, be it one or several. With several they can be
// visited only as long as the message is valid.
func (r Route) NextHops() iter.Seq[NextHop] {
	return func(yield func(NextHop) bool) {
		if !r.Multipath() {
			yield(NextHop{r.Gateway, r.Dev})
			return
		}
		for b := r.hops; len(b) >= unix.SizeofRtNexthop; {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtNexthop || size > len(b) {
				return
			}
			h := NextHop{Dev: int(Uint32(b[4:]))}
			for typ, value := range Attrs(b[unix.SizeofRtNexthop:size]) {
				if typ == unix.RTA_GATEWAY {
					h.Gateway = Addr(value)
				}
			}
			if !yield(h) {
				return
			}
			b = b[min(aligned(size), len(b)):]
		}
	}
}

// Neigh is a neighbor, or with the family AF_BRIDGE an FDB entry.
type Neigh struct {
	Family uint8
	Dev    int
	// State is NUD_... of rtnetlink(7).
	State uint16
	Addr  netip.Addr
	MAC   [6]byte
	// Other means that an FDB entry names a port, a VNI or a device.
	Other bool
	// Unused is the time since the entry was last used.
	Unused time.Duration
}

// ParseNeigh decodes messages of type RTM_NEWNEIGH, RTM_DELNEIGH and
// RTM_GETNEIGH.
func ParseNeigh(body []byte) (n Neigh, ok bool) {
	if len(body) < unix.SizeofNdMsg {
		return n, false
	}
	n.Family, n.Dev, n.State = body[0], int(Uint32(body[4:])), Uint16(body[8:])
	for typ, value := range Attrs(body[unix.SizeofNdMsg:]) {
		switch typ {
		case unix.NDA_DST:
			n.Addr = Addr(value)
		case unix.NDA_LLADDR:
			if len(value) == len(n.MAC) {
				n.MAC = [6]byte(value)
			}
		case unix.NDA_PORT, unix.NDA_VNI, unix.NDA_IFINDEX:
			n.Other = true
		case unix.NDA_CACHEINFO:
			if len(value) >= 8 { // confirmed, used
				n.Unused = time.Duration(Uint32(value[4:])) * time.Second / userHertz
			}
		}
	}
	return n, true
}

// userHertz is the unit of times that the kernel tells user space.
const userHertz = 100

// LinkEvent is what a message of type RTM_NEWLINK or RTM_DELLINK holds that is
// no longer to be seen when the link is read: that it was down, or is gone.
type LinkEvent struct {
	Index int
	Up    bool
}

// ParseLinkEvent decodes messages about links. Everything else about a link is
// read through a Handle.
func ParseLinkEvent(m Message) (e LinkEvent, ok bool) {
	// Bridges tell of their ports in messages of their own family.
	if len(m.Body) < unix.SizeofIfInfomsg || m.Body[0] != unix.AF_UNSPEC {
		return e, false
	}
	up := m.Type == unix.RTM_NEWLINK && Uint32(m.Body[8:])&unix.IFF_UP != 0
	return LinkEvent{int(Uint32(m.Body[4:])), up}, true
}

// AddrEvent is which address a message of type RTM_NEWADDR or RTM_DELADDR is
// about.
type AddrEvent struct {
	Dev int
	// Addr is the address of this host, with the length of its network.
	Addr netip.Prefix
}

// ParseAddrEvent decodes messages about addresses. Everything else about an
// address is read through a Handle.
func ParseAddrEvent(m Message) (e AddrEvent, ok bool) {
	if len(m.Body) < unix.SizeofIfAddrmsg {
		return e, false
	}
	var local, address netip.Addr
	for typ, value := range Attrs(m.Body[unix.SizeofIfAddrmsg:]) {
		switch typ {
		case unix.IFA_LOCAL:
			local = Addr(value)
		case unix.IFA_ADDRESS:
			address = Addr(value)
		}
	}
	if !local.IsValid() { // IPv6 has only the other.
		local = address
	}
	e = AddrEvent{int(Uint32(m.Body[4:])), netip.PrefixFrom(local, int(m.Body[1]))}
	return e, e.Addr.IsValid()
}
