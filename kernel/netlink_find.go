package kernel

import (
	"net/netip"

	"flannel/kernel/rtnl"

	"golang.org/x/sys/unix"
)

// findRoutes returns those of the routes that exist, whoever made them. The
// kernel lists a whole table or says what it would do with a packet; on a host
// with very many routes the latter is cheaper by far. Routes that it does not
// show so, because others hide them or because they drop packets, are looked
// for in the whole table.
func (t netlinkTables) findRoutes(keys []routeKey) (map[routeKey]routeValue, error) {
	found := make(map[routeKey]routeValue, len(keys))
	hidden := make(map[routeKey]bool)
	for _, k := range keys {
		if v, ok := t.findRoute(k); ok {
			found[k] = v
		} else {
			hidden[k] = true
		}
	}
	if len(hidden) == 0 {
		return found, nil
	}
	err := t.dumpRoutes(unix.RTPROT_UNSPEC, func(k routeKey, v routeValue) {
		if hidden[k] {
			found[k] = v
		}
	})
	return found, err
}

// findRoute asks which route addresses inside the destination match.
func (t netlinkTables) findRoute(k routeKey) (v routeValue, ok bool) {
	for _, a := range samples(k.dst) {
		// The kernel's refusal says only that this address does not help.
		_ = t.conn.Dump(func(b *rtnl.Batch) {
			b.Route(unix.RTM_GETROUTE, 0, unix.RtMsg{Family: family(a), Dst_len: uint8(a.BitLen()), Flags: rtmFibMatch})
			b.Addr(unix.RTA_DST, a)
		}, func(m rtnl.Message) {
			if key, value, parsed := parseRoute(m.Body); parsed && key == k {
				v, ok = value, true
			}
		})
		if ok {
			return v, true
		}
	}
	return v, false
}

// rtmFibMatch is RTM_F_FIB_MATCH of linux/rtnetlink.h: return the route and not
// what is made of it.
const rtmFibMatch = 0x2000

// samples returns addresses of which a more specific route is unlikely to have
// all: from the middle of the prefix and from its end.
func samples(p netip.Prefix) []netip.Addr {
	raw := p.Addr().AsSlice()
	set := func(bit int) { raw[bit/8] |= 0x80 >> (bit % 8) }
	if p.Bits() < p.Addr().BitLen() {
		set(p.Bits())
	}
	middle, _ := netip.AddrFromSlice(raw)
	for bit := p.Bits(); bit < p.Addr().BitLen()-1; bit++ {
		set(bit)
	}
	end, _ := netip.AddrFromSlice(raw)
	return []netip.Addr{middle, end, p.Addr()}
}
