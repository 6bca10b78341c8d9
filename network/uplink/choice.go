package uplink

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"flannel/backend"
	"flannel/internal/ipfam"
)

// choice decides which uplink is in use, from one look at the host to the next.
// It does no I/O.
//
// An address in use stays in use as long as it is on its interface. When it is
// lost, an address that has appeared on the same interface since takes its place
// at once. Everything else may serve another purpose, or be all that is left for
// a moment: an address that was there before, another interface, and a
// link-local address, are used only after the grace time, and are forced. Only
// what is forced is given up again for something better.
type choice struct {
	options Options
	// grace is how long something better is waited for; stable is how long it
	// has to be there before a forced address is given up for it.
	grace, stable time.Duration

	// up is in use; it is zero before the first choice.
	up backend.Uplink
	// home is what was in use before it had to be replaced. While nothing is lost
	// or forced, home is up.
	home backend.Uplink
	// state is that of the addresses in use.
	state ipfam.Pair[addrState]
}

// addrState is the state of the address in use in one family.
type addrState struct {
	// lost is when it was first missed, zero while it is there.
	lost   time.Time
	forced bool
	// seen are the addresses of the host when that of home was last there.
	seen []Addr
	// next is what is to be used in its place.
	next target
}

func (a addrState) isLost() bool   { return !a.lost.IsZero() }
func (a addrState) isForced() bool { return a.forced }

// target is an address of an interface, and since when it is wanted.
type target struct {
	index int
	ip    netip.Addr
	since time.Time
}

// open reports whether something else than what is in use is looked for.
func (c *choice) open() bool {
	return c.up.Index == 0 || !c.all(func(a addrState) bool { return !a.isLost() && !a.forced })
}

// waits reports whether something is wanted in place of what is in use.
func (c *choice) waits() bool {
	return !c.all(func(a addrState) bool { return a.next == target{} })
}

// needsRoutes reports whether a look at this host depends on its routes.
func (c *choice) needsRoutes(s Snapshot) bool {
	for _, ip := range ipfam.Addrs(c.up.Addr) {
		if !s.has(c.up.Index, ip) {
			return true
		}
	}
	return c.open()
}

// look decides. The error names what of the uplink is missing.
func (c *choice) look(s Snapshot, now time.Time) error {
	link := c.note(s, now)
	for f := range ipfam.Addrs(c.up.Addr) {
		if !c.state[f].isLost() {
			continue
		}
		if ip := c.onAgain(s, link, f); ip.IsValid() {
			c.take(s, f, link, ip, !c.atHome(link))
		}
	}
	if !c.open() {
		return nil
	}
	found, given, notFound := find(c.options, s)
	next := c.wanted(s, link, found, given)
	moves := next.Index != link.Index
	var forced ipfam.Pair[bool]
	var early []error
	for _, f := range ipfam.All() {
		c.want(f, next, now)
		if (c.state[f].next == target{}) {
			continue
		}
		var ready bool
		ready, forced[f] = c.ready(f, link, isLastResort(next.Addr[f], given[f]), now)
		switch {
		case !ready:
			early = append(early, fmt.Errorf("%s has only link-local %s addresses: %s is used if no other comes", next.Name, f, next.Addr[f]))
		case !moves:
			c.take(s, f, link, next.Addr[f], forced[f])
		}
	}
	if moves && early == nil {
		c.move(s, next, forced)
		return nil
	}
	missing := c.missing(link)
	switch {
	case c.up.Index == 0:
		return cmp.Or(notFound, errors.Join(early...))
	case missing != nil && notFound != nil:
		return fmt.Errorf("%w: %w", missing, notFound)
	case missing != nil && moves:
		return fmt.Errorf("%w: %s is used if it does not come back", missing, next.Name)
	}
	return missing
}

// wanted returns the uplink without what is lost or forced about it, as far as
// there is something else.
func (c *choice) wanted(s Snapshot, link Link, found backend.Uplink, given ipfam.Pair[netip.Addr]) backend.Uplink {
	elsewhere := found.Index != 0 && found.Index != link.Index
	if elsewhere && c.all(addrState.isForced) {
		if next, ok := c.better(s, found, given); ok {
			return next
		}
	}
	if elsewhere && c.all(addrState.isLost) { // or nothing is in use yet
		return found
	}
	next := c.up
	next.Name, next.Index, next.MTU = link.Name, link.Index, link.MTU
	for f, ip := range ipfam.Addrs(c.up.Addr) {
		var other netip.Addr
		switch state := c.state[f]; {
		case state.isLost(), state.forced && ip.IsLinkLocalUnicast():
			other = c.on(s, link, f, anyAddr)
		case state.forced && c.atHome(link):
			other = c.onAgain(s, link, f)
		}
		if other.IsValid() || c.state[f].isLost() {
			next.Addr[f] = other
		}
	}
	return next
}

// better returns what the selection finds on another interface, if that is not
// a last resort as well.
func (c *choice) better(s Snapshot, found backend.Uplink, given ipfam.Pair[netip.Addr]) (backend.Uplink, bool) {
	link, _ := s.linkByIndex(found.Index)
	for f := range ipfam.Addrs(found.Addr) {
		if ip := c.onAgain(s, link, f); ip.IsValid() && c.atHome(link) {
			found.Addr[f] = ip
		}
		if isLastResort(found.Addr[f], given[f]) {
			return found, false
		}
	}
	return found, true
}

// isLastResort reports whether an address is link-local and no flag gives it.
func isLastResort(ip, given netip.Addr) bool { return ip.IsLinkLocalUnicast() && ip != given }

// want notes what is to be used in one family, and since when.
func (c *choice) want(f ipfam.Family, next backend.Uplink, now time.Time) {
	state, ip := &c.state[f], next.Addr[f]
	switch {
	case !ip.IsValid() || next.Index == c.up.Index && ip == c.up.Addr[f]:
		state.next = target{}
	case state.next.index != next.Index || state.next.ip != ip:
		state.next = target{next.Index, ip, now}
	}
}

// ready reports whether what is wanted in one family may be used, and whether it
// is then forced.
func (c *choice) ready(f ipfam.Family, link Link, lastResort bool, now time.Time) (ready, forced bool) {
	state := c.state[f]
	waited := now.Sub(state.next.since)
	switch {
	case c.up.Index == 0:
		return !lastResort || waited >= c.grace, lastResort
	case state.isLost() && now.Sub(state.lost) >= c.grace && (!lastResort || waited >= c.grace):
		return true, true
	case state.forced && (waited >= c.stable || c.up.Addr[f].IsLinkLocalUnicast()):
		return true, state.next.index == link.Index && !c.atHome(link)
	}
	return false, false
}

// remember counts addresses among those that the uplink had before it lost the
// ones in use. They may have come between two looks.
func (c *choice) remember(added []netip.Addr) {
	for _, ip := range added {
		if state := &c.state[ipfam.Of(ip)]; !state.isLost() && !state.forced {
			state.seen = append(slices.Clip(state.seen), Addr{Link: c.up.Index, IP: ip})
		}
	}
}

// note brings up to date what is known of the uplink in use, and returns its
// interface: if that was made again, the one that has its name.
func (c *choice) note(s Snapshot, now time.Time) Link {
	link, ok := s.linkByIndex(c.up.Index)
	if ok {
		if c.home.Index == link.Index {
			c.home.Name = link.Name
		}
		c.up.Name = link.Name
		if link.MTU != 0 {
			c.up.MTU = link.MTU
		}
	} else {
		link, _ = s.linkByName(c.up.Name)
	}
	for f, ip := range ipfam.Addrs(c.up.Addr) {
		switch {
		case s.has(c.up.Index, ip):
			c.state[f].lost = time.Time{}
			if !c.state[f].forced {
				c.state[f].seen, c.state[f].next = s.Addrs, target{}
			}
		case !c.state[f].isLost():
			c.state[f].lost = now
		}
	}
	return link
}

// missing returns an error that names the lost part of the uplink in use.
func (c *choice) missing(link Link) error {
	var errs []error
	for f, ip := range ipfam.Addrs(c.up.Addr) {
		switch {
		case !c.state[f].isLost():
		case link.Index == 0:
			return fmt.Errorf("interface %s is gone", c.up.Name)
		default:
			errs = append(errs, fmt.Errorf("address %s of %s is gone", ip, c.up.Name))
		}
	}
	return errors.Join(errs...)
}

// take uses an address of an interface in one family.
func (c *choice) take(s Snapshot, f ipfam.Family, link Link, ip netip.Addr, forced bool) {
	c.up.Name, c.up.Index, c.up.MTU = link.Name, link.Index, link.MTU
	c.up.Addr[f] = ip
	c.taken(s, f, forced)
}

// move uses another interface, or the first one.
func (c *choice) move(s Snapshot, up backend.Uplink, forced ipfam.Pair[bool]) {
	if c.up.Index == 0 {
		c.home = up
		c.state = ipfam.Pair[addrState]{{seen: s.Addrs}, {seen: s.Addrs}}
	}
	c.up = up
	for f := range ipfam.Addrs(up.Addr) {
		c.taken(s, f, forced[f])
	}
}

// taken ends the search in one family.
func (c *choice) taken(s Snapshot, f ipfam.Family, forced bool) {
	c.up.Public = c.options.public(c.up.Addr)
	state := &c.state[f]
	state.lost, state.next, state.forced = time.Time{}, target{}, forced
	if !forced {
		c.home.Name, c.home.Index, c.home.Addr[f] = c.up.Name, c.up.Index, c.up.Addr[f]
		state.seen = s.Addrs
	}
}

// all reports whether all addresses in use have such a state.
func (c *choice) all(such func(addrState) bool) bool {
	for f := range ipfam.Addrs(c.up.Addr) {
		if !such(c.state[f]) {
			return false
		}
	}
	return true
}

// atHome reports whether an interface is the one that was in use before it had to
// be replaced; made again it has the same name.
func (c *choice) atHome(link Link) bool {
	return link.Index == c.home.Index || link.Name == c.home.Name
}

// onAgain returns the address of an interface that may take the place of a lost
// or forced one as if nothing had happened: the one that was in use before, or
// one that has appeared since that was lost.
func (c *choice) onAgain(s Snapshot, link Link, f ipfam.Family) netip.Addr {
	if ip := c.on(s, link, f, func(a Addr) bool { return a.IP == c.home.Addr[f] }); ip.IsValid() {
		return ip
	}
	return c.on(s, link, f, func(a Addr) bool {
		was := func(b Addr) bool { return b.Link == a.Link && b.IP == a.IP }
		return !a.IP.IsLinkLocalUnicast() && !slices.ContainsFunc(c.state[f].seen, was)
	})
}

func anyAddr(Addr) bool { return true }

// on returns the best address of one family on an interface that the flags allow
// and that fits. It takes the interface as given, whatever the routes are, and
// the other family as well.
func (c *choice) on(s Snapshot, link Link, f ipfam.Family, fits func(Addr) bool) netip.Addr {
	only := Snapshot{Links: []Link{link}, Reach: Reach{Link: link.Index}}
	for other, ip := range ipfam.Addrs(c.up.Addr) {
		only.Defaults[other] = []int{link.Index}
		if other != f {
			only.Addrs = append(only.Addrs, Addr{Link: link.Index, IP: ip})
		}
	}
	for _, a := range s.Addrs {
		if a.Link == link.Index && ipfam.Of(a.IP) == f && fits(a) {
			only.Addrs = append(only.Addrs, a)
		}
	}
	if only.has(link.Index, s.Reach.Source) {
		only.Reach.Source = s.Reach.Source
	}
	up, _, err := find(c.options, only)
	if err != nil {
		return netip.Addr{}
	}
	return up.Addr[f]
}

// next is when a look later than a time may find something else only because of
// the time; zero means never.
func (c *choice) next(after time.Time) time.Time {
	var first time.Time
	consider := func(since time.Time, wait time.Duration) {
		if t := since.Add(wait); !since.IsZero() && t.After(after) && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	for _, state := range c.state {
		wait := c.stable
		if c.up.Index == 0 || state.isLost() {
			wait = c.grace
		}
		consider(state.lost, wait)
		consider(state.next.since, wait)
	}
	return first
}
