package kernel

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"
)

// listRoutes lists the routes of our protocol, and if asked for those that
// flannel may have made, and all of a family. The kernel sorts out the rest.
func (t netlinkTables) listRoutes(s Selection, each func(RouteKey, RouteValue)) error {
	for _, f := range ipfam.All() {
		protocols := []uint8{RouteProtocol}
		switch {
		case s.Others[f]:
			protocols = []uint8{unix.RTPROT_UNSPEC}
		case s.Unmarked:
			protocols = append(protocols, unix.RTPROT_BOOT)
		}
		for _, protocol := range protocols {
			if err := t.dumpRoutes(f, protocol, each); err != nil {
				return err
			}
		}
	}
	return nil
}

// dumpRoutes lists the main table of a family; protocol 0 means all of it.
func (t netlinkTables) dumpRoutes(f ipfam.Family, protocol uint8, each func(RouteKey, RouteValue)) error {
	return t.dump(f, protocol, func(m rtnl.Message) {
		if k, v, ok := parseRoute(m.Body); ok && (protocol == 0 || v.Protocol == protocol) {
			each(k, v)
		}
	})
}

// dump passes at least the routes of a protocol in the main table of a family.
func (t netlinkTables) dump(f ipfam.Family, protocol uint8, each func(rtnl.Message)) error {
	err := t.conn.Dump(func(b *rtnl.Batch) {
		b.Route(unix.RTM_GETROUTE, unix.NLM_F_DUMP, unix.RtMsg{Family: uint8(f.AF()), Table: unix.RT_TABLE_MAIN, Protocol: protocol})
	}, each)
	if errors.Is(err, unix.ENOENT) {
		return nil // A table that nobody has used does not exist.
	}
	return err
}

func (t netlinkTables) putRoutes(changes []Change[RouteKey, RouteValue], fail func(int, error)) {
	var refused []int
	t.writeRoutes(changes, func(i int, err error) {
		c := &changes[i]
		if errors.Is(err, unix.EINVAL) && c.Want.OnLink && c.Key.Dst.Addr().Is6() {
			refused = append(refused, i)
			return
		}
		fail(i, err)
	})
	if len(refused) > 0 {
		t.putInSteps(changes, refused, fail)
	}
}

// putInSteps puts IPv6 routes whose gateway lies under a route over another
// device, for example their own earlier selves: the kernel refuses such a
// gateway, onlink or not. It lies under the route itself once that leads
// straight to the device.
func (t netlinkTables) putInSteps(changes []Change[RouteKey, RouteValue], refused []int, fail func(int, error)) {
	straight := make([]Change[RouteKey, RouteValue], len(refused))
	for i, n := range refused {
		straight[i] = changes[n]
		straight[i].Want.Via, straight[i].Want.OnLink = netip.Addr{}, false
	}
	failed := make([]bool, len(refused))
	t.writeRoutes(straight, func(i int, err error) {
		failed[i] = true
		fail(refused[i], err)
	})
	var final []Change[RouteKey, RouteValue]
	var numbers []int
	for i, n := range refused {
		if !failed[i] {
			c := changes[n]
			c.Exists = true
			final, numbers = append(final, c), append(numbers, i)
		}
	}
	var useless []Entry[RouteKey, RouteValue]
	t.writeRoutes(final, func(i int, err error) {
		if c := straight[numbers[i]]; !c.Exists {
			useless = append(useless, Entry[RouteKey, RouteValue]{c.Key, c.Want})
		}
		fail(refused[numbers[i]], err)
	})
	t.delRoutes(useless, func(int, error) {})
}

func (t netlinkTables) writeRoutes(changes []Change[RouteKey, RouteValue], fail func(int, error)) {
	t.conn.Do(len(changes), func(b *rtnl.Batch, i int) {
		c := &changes[i]
		flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
		if c.Exists {
			flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
		}
		t.route(b, unix.RTM_NEWROUTE, flags, c.Key, c.Want)
	}, fail)
}

func (t netlinkTables) delRoutes(entries []Entry[RouteKey, RouteValue], fail func(int, error)) {
	t.conn.Do(len(entries), func(b *rtnl.Batch, i int) {
		e := &entries[i]
		v := e.Value
		if v.Other {
			v.Dev = 0 // Several next hops: the protocol and the metric show which.
		}
		t.route(b, unix.RTM_DELROUTE, 0, e.Key, v)
	}, gone(fail))
}

// route adds a request about one route. The protocol is in it, so a deletion
// can only hit a route of that protocol.
func (t netlinkTables) route(b *rtnl.Batch, typ, flags uint16, k RouteKey, v RouteValue) {
	h := unix.RtMsg{
		Family: family(k.Dst.Addr()), Dst_len: uint8(k.Dst.Bits()), Table: unix.RT_TABLE_MAIN,
		Protocol: v.Protocol, Type: unix.RTN_UNICAST, Tos: k.TOS,
	}
	switch {
	case typ == unix.RTM_DELROUTE:
		h.Scope = unix.RT_SCOPE_NOWHERE // Of whatever scope.
		h.Type = unix.RTN_UNSPEC
	case v.Blackhole:
		h.Type = unix.RTN_BLACKHOLE
	case !v.Via.IsValid():
		h.Scope = unix.RT_SCOPE_LINK
	}
	if v.OnLink && typ == unix.RTM_NEWROUTE {
		h.Flags = unix.RTNH_F_ONLINK
	}
	b.Route(typ, flags, h)
	b.Addr(unix.RTA_DST, k.Dst.Addr())
	if v.Via.IsValid() && !v.Other {
		b.Addr(unix.RTA_GATEWAY, v.Via)
	}
	if v.Dev != 0 {
		b.Uint32(unix.RTA_OIF, uint32(v.Dev))
	}
	if k.Metric != 0 {
		b.Uint32(unix.RTA_PRIORITY, k.Metric)
	}
}

// parseRoute decodes a message about a route of the main table.
func parseRoute(body []byte) (k RouteKey, v RouteValue, ok bool) {
	r, ok := rtnl.ParseRoute(body)
	if !ok || r.Table != unix.RT_TABLE_MAIN {
		return k, v, false
	}
	k = RouteKey{Dst: r.Dst, Metric: uint32(r.Metric), TOS: r.TOS}
	v = RouteValue{
		Via: r.Gateway, Dev: r.Dev, Protocol: r.Protocol,
		OnLink: r.Flags&unix.RTNH_F_ONLINK != 0,
		Other:  r.Multipath() || r.Via || r.Indirect,
	}
	switch r.Type {
	case unix.RTN_UNICAST:
	case unix.RTN_BLACKHOLE:
		// IPv6 reports lo, IPv4 nothing.
		v.Blackhole, v.Dev = true, 0
	default:
		v.Other = true
	}
	return k, v, true
}

// findRoutes returns those of the routes that exist, whoever made them. The
// kernel lists a whole table or reports what it would do with a packet; on a host
// with very many routes the latter is cheaper by far. Routes that it does not
// show so, because others hide them or because they drop packets, are looked
// for in the whole table.
func (t netlinkTables) findRoutes(keys []RouteKey) (map[RouteKey]RouteValue, error) {
	found := make(map[RouteKey]RouteValue, len(keys))
	hidden := make(map[RouteKey]bool)
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
	for _, f := range ipfam.All() {
		err := t.dumpRoutes(f, unix.RTPROT_UNSPEC, func(k RouteKey, v RouteValue) {
			if _, behind := found[k]; hidden[k] && !behind {
				found[k] = v
			}
		})
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

// findRoute asks which route packets to addresses inside the destination match.
func (t netlinkTables) findRoute(k RouteKey) (v RouteValue, ok bool) {
	for _, a := range samples(k.Dst) {
		// The kernel's refusal means only that this address does not help.
		_ = t.conn.Dump(func(b *rtnl.Batch) {
			b.Route(unix.RTM_GETROUTE, 0, unix.RtMsg{Family: family(a), Dst_len: uint8(a.BitLen()), Tos: k.TOS, Flags: unix.RTM_F_FIB_MATCH})
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
