package kernel

import (
	"errors"
	"net/netip"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"

	"golang.org/x/sys/unix"
)

// listRoutes lists the routes of our protocol, and if asked for those that
// flannel may have made. The kernel sorts out the others.
func (t netlinkTables) listRoutes(s selection, each func(routeKey, routeValue)) error {
	if err := t.dumpRoutes(RouteProtocol, each); err != nil || !s.unmarked {
		return err
	}
	return t.dumpRoutes(unix.RTPROT_BOOT, each)
}

// dumpRoutes lists the main table; protocol 0 means all of it.
func (t netlinkTables) dumpRoutes(protocol uint8, each func(routeKey, routeValue)) error {
	return t.dump(protocol, func(m rtnl.Message) {
		if k, v, ok := parseRoute(m.Body); ok && (protocol == 0 || v.protocol == protocol) {
			each(k, v)
		}
	})
}

// dump passes at least the routes of a protocol in the main table.
func (t netlinkTables) dump(protocol uint8, each func(rtnl.Message)) error {
	for _, f := range ipfam.All() {
		err := t.conn.Dump(func(b *rtnl.Batch) {
			b.Route(unix.RTM_GETROUTE, unix.NLM_F_DUMP, unix.RtMsg{Family: uint8(f.AF()), Table: unix.RT_TABLE_MAIN, Protocol: protocol})
		}, each)
		// A table that nobody has used does not exist.
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

func (t netlinkTables) putRoutes(changes []change[routeKey, routeValue], fail func(int, error)) {
	var refused []int
	t.writeRoutes(changes, func(i int, err error) {
		c := &changes[i]
		if errors.Is(err, unix.EINVAL) && c.want.onLink && c.key.dst.Addr().Is6() {
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
func (t netlinkTables) putInSteps(changes []change[routeKey, routeValue], refused []int, fail func(int, error)) {
	straight := make([]change[routeKey, routeValue], len(refused))
	for i, n := range refused {
		straight[i] = changes[n]
		straight[i].want.via, straight[i].want.onLink = netip.Addr{}, false
	}
	failed := make([]bool, len(refused))
	t.writeRoutes(straight, func(i int, err error) {
		failed[i] = true
		fail(refused[i], err)
	})
	var final []change[routeKey, routeValue]
	var numbers []int
	for i, n := range refused {
		if !failed[i] {
			c := changes[n]
			c.exists = true
			final, numbers = append(final, c), append(numbers, n)
		}
	}
	t.writeRoutes(final, func(i int, err error) { fail(numbers[i], err) })
}

func (t netlinkTables) writeRoutes(changes []change[routeKey, routeValue], fail func(int, error)) {
	t.conn.Do(len(changes), func(b *rtnl.Batch, i int) {
		c := &changes[i]
		flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
		if c.exists {
			flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
		}
		t.route(b, unix.RTM_NEWROUTE, flags, c.key, c.want)
	}, fail)
}

func (t netlinkTables) delRoutes(entries []entry[routeKey, routeValue], fail func(int, error)) {
	t.conn.Do(len(entries), func(b *rtnl.Batch, i int) {
		e := &entries[i]
		v := e.value
		if v.other {
			v.dev = 0 // Several next hops: the protocol and the metric say which.
		}
		t.route(b, unix.RTM_DELROUTE, 0, e.key, v)
	}, gone(fail))
}

// route adds a request about one route. The protocol is in it, so a deletion
// can only hit a route of that protocol.
func (t netlinkTables) route(b *rtnl.Batch, typ, flags uint16, k routeKey, v routeValue) {
	h := unix.RtMsg{
		Family: family(k.dst.Addr()), Dst_len: uint8(k.dst.Bits()), Table: unix.RT_TABLE_MAIN,
		Protocol: v.protocol, Type: unix.RTN_UNICAST,
	}
	switch {
	case typ == unix.RTM_DELROUTE:
		h.Scope = unix.RT_SCOPE_NOWHERE // Of whatever scope.
		h.Type = unix.RTN_UNSPEC
	case v.blackhole:
		h.Type = unix.RTN_BLACKHOLE
	case !v.via.IsValid():
		h.Scope = unix.RT_SCOPE_LINK
	}
	if v.onLink && typ == unix.RTM_NEWROUTE {
		h.Flags = unix.RTNH_F_ONLINK
	}
	b.Route(typ, flags, h)
	b.Addr(unix.RTA_DST, k.dst.Addr())
	if v.via.IsValid() && !v.other {
		b.Addr(unix.RTA_GATEWAY, v.via)
	}
	if v.dev != 0 {
		b.Uint32(unix.RTA_OIF, uint32(v.dev))
	}
	if k.metric != 0 {
		b.Uint32(unix.RTA_PRIORITY, uint32(k.metric))
	}
}

// parseRoute decodes a message about a route of the main table.
func parseRoute(body []byte) (k routeKey, v routeValue, ok bool) {
	r, ok := rtnl.ParseRoute(body)
	if !ok || r.Table != unix.RT_TABLE_MAIN || r.TOS != 0 {
		return k, v, false
	}
	k = routeKey{dst: r.Dst, metric: r.Metric}
	v = routeValue{
		via: r.Gateway, dev: r.Dev, protocol: r.Protocol,
		onLink: r.Flags&unix.RTNH_F_ONLINK != 0,
		other:  r.Multipath() || r.Via || r.Indirect,
	}
	switch r.Type {
	case unix.RTN_UNICAST:
	case unix.RTN_BLACKHOLE:
		// IPv6 says lo, IPv4 says nothing.
		v.blackhole, v.dev = true, 0
	default:
		v.other = true
	}
	return k, v, true
}
