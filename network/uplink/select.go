package uplink

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"flannel/backend"
	"flannel/internal/ipfam"
)

// notFoundError is the reason why nothing on the host can be the uplink.
type notFoundError struct {
	// Wanted is what was looked for, and why it cannot be used.
	Wanted string
	// Found lists what the host has.
	Found string
}

func (e *notFoundError) Error() string {
	return fmt.Sprintf("no uplink: %s; the host has %s", e.Wanted, e.Found)
}

// Cause stays the same while interfaces that do not matter come and go.
func (e *notFoundError) Cause() string { return e.Wanted }

// match is what a matcher finds: an interface, and the addresses that are given
// with it.
type match struct {
	link Link
	addr ipfam.Pair[netip.Addr]
}

// matcher is one way to find the uplink. name is the flag that asks for it.
type matcher struct {
	name string
	find func(Snapshot) (match, error)
}

// find looks for the uplink in the order of the flags. given are the addresses
// that a flag leads to. The error is a *notFoundError.
func find(o Options, s Snapshot) (up backend.Uplink, given ipfam.Pair[netip.Addr], err error) {
	var causes []string
	for _, m := range o.matchers() {
		found, err := m.find(s)
		if err == nil {
			up, err = complete(o, s, found)
		}
		if err == nil {
			up.Why = m.name
			return up, found.addr, nil
		}
		causes = append(causes, m.name+": "+err.Error())
	}
	return backend.Uplink{}, given, &notFoundError{Wanted: strings.Join(causes, "; "), Found: s.describe(o.Families)}
}

// matchers lists what the options ask for, in the order in which it is tried.
func (o Options) matchers() []matcher {
	var list []matcher
	for _, name := range o.Ifaces {
		m := matcher{"--iface=" + name, byName(name)}
		if ip, err := netip.ParseAddr(name); err == nil {
			m.find = o.byAddr(ip.Unmap())
		}
		list = append(list, m)
	}
	for _, re := range o.Regexes {
		list = append(list, matcher{"--iface-regex=" + re.String(), o.byRegex(re)})
	}
	if o.CanReach.IsValid() {
		list = append(list, matcher{"--iface-can-reach=" + o.CanReach.String(), o.byReach})
	}
	if len(list) > 0 {
		return list
	}
	flags := ipfam.Pair[string]{"--public-ip=", "--public-ipv6="}
	for f, ip := range ipfam.Addrs(o.Public) {
		list = append(list, matcher{flags[f] + ip.String(), o.byPublic(f)})
	}
	list = append(list, matcher{"default route", o.byDefault})
	return list[:1]
}

func byName(name string) func(Snapshot) (match, error) {
	return func(s Snapshot) (match, error) {
		link, ok := s.linkByName(name)
		if !ok {
			return match{}, errors.New("no such interface, see 'ip link'")
		}
		return match{link: link}, nil
	}
}

func (o Options) byAddr(ip netip.Addr) func(Snapshot) (match, error) {
	return func(s Snapshot) (match, error) {
		for _, a := range s.Addrs {
			if a.IP != ip {
				continue
			}
			if link, ok := s.linkByIndex(a.Link); ok {
				return match{link: link, addr: o.given(ip)}, nil
			}
		}
		return match{}, errors.New("no interface has this address, see 'ip address'")
	}
}

// byPublic looks for the public address of one family. The one of the other
// family is used as well if it is on the same interface.
func (o Options) byPublic(f ipfam.Family) func(Snapshot) (match, error) {
	return func(s Snapshot) (match, error) {
		m, err := o.byAddr(o.Public[f])(s)
		if err != nil {
			return match{}, fmt.Errorf("%w; behind an address translation name the interface with --iface", err)
		}
		for other, ip := range ipfam.Addrs(o.Public) {
			if s.has(m.link.Index, ip) {
				m.addr[other] = ip
			}
		}
		return m, nil
	}
}

func (o Options) byRegex(re *regexp.Regexp) func(Snapshot) (match, error) {
	return func(s Snapshot) (match, error) {
		for _, link := range s.Links {
			if m := (match{link, o.matching(re, s, link)}); m.addr != (ipfam.Pair[netip.Addr]{}) {
				return m, nil
			}
		}
		for _, link := range s.Links {
			if re.MatchString(link.Name) {
				return match{link: link}, nil
			}
		}
		return match{}, errors.New("matches no address and no name, see 'ip address'")
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

func (o Options) byReach(s Snapshot) (match, error) {
	if s.Reach.Err != nil {
		return match{}, fmt.Errorf("no route: %w, see 'ip route get %s'", s.Reach.Err, o.CanReach)
	}
	link, ok := s.linkByIndex(s.Reach.Link)
	if !ok {
		return match{}, fmt.Errorf("no route, see 'ip route get %s'", o.CanReach)
	}
	return match{link: link, addr: o.given(s.Reach.Source)}, nil
}

func (o Options) byDefault(s Snapshot) (match, error) {
	var m match
	for f, on := range o.Families.Each() {
		if !on {
			continue
		}
		if len(s.Defaults[f]) == 0 {
			return match{}, fmt.Errorf("none for %s, see 'ip -%c route show default'", f, f.String()[3])
		}
		link, ok := s.linkByIndex(s.Defaults[f][0])
		if !ok {
			return match{}, fmt.Errorf("the one for %s has no interface", f)
		}
		if m.link.Index != 0 && m.link != link {
			return match{}, fmt.Errorf("ipv4 leaves by %s and ipv6 by %s: name one with --iface", m.link.Name, link.Name)
		}
		m.link = link
	}
	return m, nil
}

// given returns an address that a flag leads to, in its family if that is on.
func (o Options) given(ip netip.Addr) ipfam.Pair[netip.Addr] {
	var p ipfam.Pair[netip.Addr]
	if f := ipfam.Of(ip); ip.IsValid() && o.Families[f] {
		p[f] = ip
	}
	return p
}

// complete fills in the addresses that are not given.
func complete(o Options, s Snapshot, m match) (backend.Uplink, error) {
	up := backend.Uplink{Name: m.link.Name, Index: m.link.Index, MTU: m.link.MTU, Addr: m.addr}
	if up.MTU == 0 {
		return up, fmt.Errorf("%s has no MTU", up.Name)
	}
	for f, on := range o.Families.Each() {
		if !on || up.Addr[f].IsValid() {
			continue
		}
		usable := s.usable(up.Index, f)
		if len(usable) == 0 {
			return up, fmt.Errorf("%s has no usable %s address, see 'ip address show dev %s'", up.Name, f, up.Name)
		}
		up.Addr[f] = usable[0]
	}
	up.Public = o.public(up.Addr)
	return up, nil
}

// public returns what other nodes send to if these are the uplink's addresses.
func (o Options) public(addrs ipfam.Pair[netip.Addr]) ipfam.Pair[netip.Addr] {
	for f, a := range ipfam.Addrs(o.Public) {
		addrs[f] = a
	}
	return addrs
}
