package kernel

import (
	"net/netip"
	"time"

	"flannel/kernel/rtnl"

	"golang.org/x/sys/unix"
)

// rtaNextHopID is RTA_NH_ID of linux/rtnetlink.h.
const rtaNextHopID = 30

// The parsers read messages of the kernel. They accept any bytes; ok is false
// when a message is too short or about something else.

func parseLink(body []byte) (l link, ok bool) {
	// Bridges tell of their ports in messages of their own family.
	if len(body) < unix.SizeofIfInfomsg || body[0] != unix.AF_UNSPEC {
		return link{}, false
	}
	l.index = int(rtnl.Uint32(body[4:]))
	l.up = rtnl.Uint32(body[8:])&unix.IFF_UP != 0
	for typ, value := range rtnl.Attrs(body[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.name = rtnl.Text(value)
		case unix.IFLA_IFALIAS:
			l.alias = rtnl.Text(value)
		case unix.IFLA_MTU:
			l.mtu = int(rtnl.Uint32(value))
		case unix.IFLA_ADDRESS:
			l.mac = parseMAC(value)
		case unix.IFLA_MASTER:
			l.master = int(rtnl.Uint32(value))
		case unix.IFLA_LINKINFO:
			l.kind, l.vxlan = parseLinkInfo(value)
		}
	}
	return l, true
}

func parseLinkInfo(b []byte) (kind string, v VXLAN) {
	var data []byte
	for typ, value := range rtnl.Attrs(b) {
		switch typ {
		case unix.IFLA_INFO_KIND:
			kind = rtnl.Text(value)
		case unix.IFLA_INFO_DATA:
			data = value
		}
	}
	if kind != kindVXLAN {
		return kind, v
	}
	for typ, value := range rtnl.Attrs(data) {
		switch typ {
		case unix.IFLA_VXLAN_ID:
			v.VNI = int(rtnl.Uint32(value))
		case unix.IFLA_VXLAN_LINK:
			v.Uplink = int(rtnl.Uint32(value))
		case unix.IFLA_VXLAN_LOCAL, unix.IFLA_VXLAN_LOCAL6:
			v.Local = rtnl.Addr(value)
		case unix.IFLA_VXLAN_PORT:
			v.Port = int(rtnl.Uint16BE(value))
		case unix.IFLA_VXLAN_LEARNING:
			v.Learning = len(value) > 0 && value[0] != 0
		case unix.IFLA_VXLAN_GBP:
			v.GBP = true
		}
	}
	return kind, v
}

func parseAddr(body []byte) (k addrKey, ok bool) {
	if len(body) < unix.SizeofIfAddrmsg {
		return addrKey{}, false
	}
	k.dev = int(rtnl.Uint32(body[4:]))
	var local, address netip.Addr
	for typ, value := range rtnl.Attrs(body[unix.SizeofIfAddrmsg:]) {
		switch typ {
		case unix.IFA_LOCAL:
			local = rtnl.Addr(value)
		case unix.IFA_ADDRESS:
			address = rtnl.Addr(value)
		}
	}
	if !local.IsValid() { // IPv6 has only the other.
		local = address
	}
	k.prefix = netip.PrefixFrom(local, int(body[1]))
	return k, k.prefix.IsValid()
}

// neighMessage is what the kernel says about a neighbour or an FDB entry.
type neighMessage struct {
	family uint8
	dev    int
	state  uint16
	addr   netip.Addr
	mac    MAC
	// other says that an FDB entry names a port, a VNI or a device.
	other bool
	// unused is the time since the entry was last used.
	unused time.Duration
}

// userHertz is the unit of times that the kernel tells user space.
const userHertz = 100

func (n neighMessage) fdbValue() fdbValue { return fdbValue{n.addr, n.other} }

func parseNeigh(body []byte) (n neighMessage, ok bool) {
	if len(body) < unix.SizeofNdMsg {
		return neighMessage{}, false
	}
	n.family = body[0]
	n.dev = int(rtnl.Uint32(body[4:]))
	n.state = rtnl.Uint16(body[8:])
	for typ, value := range rtnl.Attrs(body[unix.SizeofNdMsg:]) {
		switch typ {
		case unix.NDA_DST:
			n.addr = rtnl.Addr(value)
		case unix.NDA_LLADDR:
			n.mac = parseMAC(value)
		case unix.NDA_PORT, unix.NDA_VNI, unix.NDA_IFINDEX:
			n.other = true
		case unix.NDA_CACHEINFO:
			if len(value) >= 8 { // confirmed, used
				n.unused = time.Duration(rtnl.Uint32(value[4:])) * time.Second / userHertz
			}
		}
	}
	return n, true
}

func parseRoute(body []byte) (k routeKey, v routeValue, ok bool) {
	if len(body) < unix.SizeofRtMsg {
		return k, v, false
	}
	family, bits, tos := body[0], int(body[1]), body[3]
	table := uint32(body[4])
	v.protocol = body[5]
	kind := body[7]
	v.onLink = rtnl.Uint32(body[8:])&unix.RTNH_F_ONLINK != 0
	dst := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	for typ, value := range rtnl.Attrs(body[unix.SizeofRtMsg:]) {
		switch typ {
		case unix.RTA_TABLE:
			table = rtnl.Uint32(value)
		case unix.RTA_DST:
			dst = rtnl.Addr(value)
		case unix.RTA_GATEWAY:
			v.via = rtnl.Addr(value)
		case unix.RTA_OIF:
			v.dev = int(rtnl.Uint32(value))
		case unix.RTA_PRIORITY:
			k.metric = int(rtnl.Uint32(value))
		case unix.RTA_MULTIPATH, unix.RTA_VIA, rtaNextHopID, unix.RTA_ENCAP:
			v.other = true
		}
	}
	switch kind {
	case unix.RTN_UNICAST:
	case unix.RTN_BLACKHOLE:
		// IPv6 says lo, IPv4 says nothing.
		v.blackhole, v.dev = true, 0
	default:
		v.other = true
	}
	k.dst = netip.PrefixFrom(dst, bits)
	return k, v, k.dst.IsValid() && table == unix.RT_TABLE_MAIN && tos == 0
}

func parseMAC(b []byte) MAC {
	if len(b) != len(MAC{}) {
		return MAC{}
	}
	return MAC(b)
}
