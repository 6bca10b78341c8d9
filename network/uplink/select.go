package uplink

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"flannel/backend"
	"flannel/internal/ipfam"
)

// NotFoundError says why nothing on the host can be the uplink.
type NotFoundError struct {
	// Cause is what was looked for and why it did not do.
	Cause string
	// Found lists what the host has.
	Found string
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("no uplink: %s; the host has %s", e.Cause, e.Found)
}

// match is what one way of looking finds: an interface, and the addresses that
// are given with it.
type match struct {
	link Link
	addr ipfam.Pair[netip.Addr]
}

// way is one way of looking; why says why it found nothing.
type way struct {
	name string
	find func(Snapshot) (m match, why string)
}

// find looks for the uplink in the order that the flags say. given are the
// addresses that a flag leads to. The error is a *NotFoundError.
func find(o Options, s Snapshot) (up backend.Uplink, given ipfam.Pair[netip.Addr], err error) {
	var causes []string
	for _, w := range o.ways() {
		m, why := w.find(s)
		if why == "" {
			var up backend.Uplink
			if up, why = complete(o, s, m); why == "" {
				return up, m.addr, nil
			}
		}
		causes = append(causes, w.name+": "+why)
	}
	return backend.Uplink{}, given, &NotFoundError{Cause: strings.Join(causes, "; "), Found: s.describe(o.Families)}
}

// ways lists what the options say, in the order in which it is tried.
func (o Options) ways() []way {
	var ways []way
	for _, name := range o.Ifaces {
		w := way{"--iface=" + name, o.byName(name)}
		if ip, err := netip.ParseAddr(name); err == nil {
			w.find = o.byAddr(ip.Unmap())
		}
		ways = append(ways, w)
	}
	for _, re := range o.Regexes {
		ways = append(ways, way{"--iface-regex=" + re.String(), o.byRegex(re)})
	}
	if o.CanReach.IsValid() {
		ways = append(ways, way{"--iface-can-reach=" + o.CanReach.String(), o.byReach})
	}
	switch flags := (ipfam.Pair[string]{"--public-ip=", "--public-ipv6="}); {
	case len(ways) > 0:
		return ways
	case o.Public[ipfam.V4].IsValid():
		return []way{{flags[ipfam.V4] + o.Public[ipfam.V4].String(), o.byPublic(ipfam.V4)}}
	case o.Public[ipfam.V6].IsValid():
		return []way{{flags[ipfam.V6] + o.Public[ipfam.V6].String(), o.byPublic(ipfam.V6)}}
	}
	return []way{{"default route", o.byDefault}}
}

func (o Options) byName(name string) func(Snapshot) (match, string) {
	return func(s Snapshot) (match, string) {
		link, ok := s.linkByName(name)
		if !ok {
			return match{}, "no such interface, see 'ip link'"
		}
		return match{link: link}, ""
	}
}

func (o Options) byAddr(ip netip.Addr) func(Snapshot) (match, string) {
	return func(s Snapshot) (match, string) {
		for _, a := range s.Addrs {
			if a.IP != ip {
				continue
			}
			if link, ok := s.linkByIndex(a.Link); ok {
				return match{link: link, addr: o.given(ip)}, ""
			}
		}
		return match{}, "no interface has this address, see 'ip address'"
	}
}

// byPublic looks for the public address of one family. The one of the other
// family is used as well when it is on the same interface.
func (o Options) byPublic(f ipfam.Family) func(Snapshot) (match, string) {
	return func(s Snapshot) (match, string) {
		m, why := o.byAddr(o.Public[f])(s)
		if why != "" {
			return match{}, why + "; behind an address translation name the interface with --iface"
		}
		for other, ip := range ipfam.Addrs(o.Public) {
			if s.has(m.link.Index, ip) {
				m.addr[other] = ip
			}
		}
		return m, ""
	}
}

func (o Options) byRegex(re *regexp.Regexp) func(Snapshot) (match, string) {
	return func(s Snapshot) (match, string) {
		for _, link := range s.Links {
			if m := (match{link, o.matching(re, s, link)}); m.addr != (ipfam.Pair[netip.Addr]{}) {
				return m, ""
			}
		}
		for _, link := range s.Links {
			if re.MatchString(link.Name) {
				return match{link: link}, ""
			}
		}
		return match{}, "matches no address and no name, see 'ip address'"
	}
}

// matching returns the best address of each family that a pattern matches.
func (o Options) matching(re *regexp.Regexp, s Snapshot, link Link) ipfam.Pair[netip.Addr] {
	var found ipfam.Pair[netip.Addr]
	for f, on := range o.Families.Each() {
		for _, ip := range s.usable(link.Index, f) {
			if on && !found[f].IsValid() && re.MatchString(ip.String()) {
				found[f] = ip
			}
		}
	}
	return found
}

func (o Options) byReach(s Snapshot) (match, string) {
	if s.Reach.Err != nil {
		return match{}, fmt.Sprintf("no route: %v, see 'ip route get %s'", s.Reach.Err, o.CanReach)
	}
	link, ok := s.linkByIndex(s.Reach.Link)
	if !ok {
		return match{}, fmt.Sprintf("no route, see 'ip route get %s'", o.CanReach)
	}
	return match{link: link, addr: o.given(s.Reach.Source)}, ""
}

func (o Options) byDefault(s Snapshot) (match, string) {
	var m match
	for f, on := range o.Families.Each() {
		if !on {
			continue
		}
		if len(s.Defaults[f]) == 0 {
			return match{}, fmt.Sprintf("none for %s, see 'ip -%c route show default'", f, f.String()[3])
		}
		link, ok := s.linkByIndex(s.Defaults[f][0])
		if !ok {
			return match{}, fmt.Sprintf("the one for %s has no interface", f)
		}
		if m.link.Index != 0 && m.link != link {
			return match{}, fmt.Sprintf("ipv4 leaves by %s and ipv6 by %s: name one with --iface", m.link.Name, link.Name)
		}
		m.link = link
	}
	return m, ""
}

// given is an address that a flag leads to, in its family if that is on.
func (o Options) given(ip netip.Addr) ipfam.Pair[netip.Addr] {
	var p ipfam.Pair[netip.Addr]
	if f := ipfam.Of(ip); ip.IsValid() && o.Families[f] {
		p[f] = ip
	}
	return p
}

// complete fills in the addresses that are not given.
func complete(o Options, s Snapshot, m match) (backend.Uplink, string) {
	up := backend.Uplink{Name: m.link.Name, Index: m.link.Index, MTU: m.link.MTU, Addr: m.addr}
	if up.MTU == 0 {
		return up, fmt.Sprintf("%s has no MTU", up.Name)
	}
	for f, on := range o.Families.Each() {
		if !on || up.Addr[f].IsValid() {
			continue
		}
		usable := s.usable(up.Index, f)
		if len(usable) == 0 {
			return up, fmt.Sprintf("%s has no usable %s address, see 'ip address show dev %s'", up.Name, f, up.Name)
		}
		up.Addr[f] = usable[0]
	}
	up.Public = o.public(up.Addr)
	return up, ""
}

// public is what other nodes send to when these are the uplink's addresses.
func (o Options) public(own ipfam.Pair[netip.Addr]) ipfam.Pair[netip.Addr] {
	for f, a := range ipfam.Addrs(o.Public) {
		own[f] = a
	}
	return own
}
