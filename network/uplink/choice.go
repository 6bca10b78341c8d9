package uplink

import (
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
	// lost is when an address in use was first missed, zero while it is there.
	lost   ipfam.Pair[time.Time]
	forced ipfam.Pair[bool]
	// home is what was in use before it had to be replaced, and seen are the
	// addresses of the host when it was last there. While nothing is lost or
	// forced, home is up.
	home backend.Uplink
	seen ipfam.Pair[[]Addr]
	// linkLocal is since when only a link-local address is left.
	linkLocal ipfam.Pair[time.Time]
	// better is what a forced address is to be given up for.
	better ipfam.Pair[target]
}

// target is an address of an interface, and since when it is there.
type target struct {
	index int
	ip    netip.Addr
	since time.Time
}

// open reports whether the choice may change although the addresses in use are
// on their interface.
func (c *choice) open() bool {
	return c.up.Index == 0 || c.forced != ipfam.Pair[bool]{}
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
	if c.up.Index == 0 {
		return c.start(s, now)
	}
	link := c.note(s, now)
	for f := range ipfam.Addrs(c.up.Addr) {
		if c.lost[f].IsZero() {
			continue
		}
		if ip := c.onAgain(s, link, f); ip.IsValid() {
			c.take(s, f, link, ip, !c.atHome(link))
		}
	}
	err := c.force(s, link, now)
	c.revisit(s, now)
	return err
}

// start makes the first choice.
func (c *choice) start(s Snapshot, now time.Time) error {
	up, given, err := find(c.options, s)
	if err != nil {
		c.linkLocal = ipfam.Pair[time.Time]{}
		return err
	}
	var forced ipfam.Pair[bool]
	for f, ip := range ipfam.Addrs(up.Addr) {
		forced[f] = ip.IsLinkLocalUnicast() && ip != given[f]
		if !c.due(f, ip, given[f], now) {
			err = errors.Join(err, fmt.Errorf("%s has only link-local %s addresses: %s is used if no other comes", up.Name, f, ip))
		}
	}
	if err != nil {
		return err
	}
	c.up, c.forced, c.home = up, forced, up
	for f := range ipfam.Addrs(up.Addr) {
		c.seen[f] = s.Addrs
	}
	return nil
}

// remember counts addresses among those that the uplink had before it lost the
// ones in use. They may have come between two looks.
func (c *choice) remember(added []netip.Addr) {
	for _, ip := range added {
		if f := ipfam.Of(ip); c.lost[f].IsZero() && !c.forced[f] {
			c.seen[f] = append(slices.Clip(c.seen[f]), Addr{Link: c.up.Index, IP: ip})
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
			c.lost[f] = time.Time{}
			if !c.forced[f] {
				c.seen[f] = s.Addrs
			}
		case c.lost[f].IsZero():
			c.lost[f] = now
		}
	}
	return link
}

// force replaces addresses that have been missed for too long by what there is.
// The error names what is still missing.
func (c *choice) force(s Snapshot, link Link, now time.Time) error {
	if c.lost == (ipfam.Pair[time.Time]{}) {
		return nil
	}
	next, given, notFound := find(c.options, s)
	if notFound == nil && next.Index != link.Index && c.all(func(f ipfam.Family) bool { return !c.lost[f].IsZero() }) {
		if c.all(func(f ipfam.Family) bool { return c.due(f, next.Addr[f], given[f], now) }) {
			c.move(s, next, true)
			return nil
		}
		return fmt.Errorf("%w: %s is used if it does not come back", c.missing(link), next.Name)
	}
	for f := range ipfam.Addrs(c.up.Addr) {
		if c.lost[f].IsZero() {
			continue
		}
		if ip := c.on(s, link, f, anyAddr); c.due(f, ip, netip.Addr{}, now) {
			c.take(s, f, link, ip, true)
		}
	}
	err := c.missing(link)
	if err != nil && notFound != nil {
		return fmt.Errorf("%w: %w", err, notFound)
	}
	return err
}

// due reports whether an address may be used in place of one that is lost, or at
// the start, for want of a better one. A link-local address that no flag gives
// has to be the only one for the whole grace time.
func (c *choice) due(f ipfam.Family, ip, given netip.Addr, now time.Time) bool {
	switch {
	case !ip.IsLinkLocalUnicast() || ip == given:
		c.linkLocal[f] = time.Time{}
	case c.linkLocal[f].IsZero():
		c.linkLocal[f] = now
	}
	return ip.IsValid() && now.Sub(c.lost[f]) >= c.grace && now.Sub(c.linkLocal[f]) >= c.grace
}

// missing returns an error that names the lost part of the uplink in use.
func (c *choice) missing(link Link) error {
	var errs []error
	for f, ip := range ipfam.Addrs(c.up.Addr) {
		switch {
		case c.lost[f].IsZero():
		case link.Index == 0:
			return fmt.Errorf("interface %s is gone", c.up.Name)
		default:
			errs = append(errs, fmt.Errorf("address %s of %s is gone", ip, c.up.Name))
		}
	}
	return errors.Join(errs...)
}

// revisit gives forced addresses up for better ones: a link-local one at once,
// others when the better one was there for a while.
func (c *choice) revisit(s Snapshot, now time.Time) {
	next := c.wanted(s)
	link, _ := s.linkByIndex(next.Index)
	ready := func(f ipfam.Family) bool {
		return c.up.Addr[f].IsLinkLocalUnicast() || now.Sub(c.better[f].since) >= c.stable
	}
	for f, ip := range ipfam.Addrs(next.Addr) {
		same := next.Index == c.up.Index
		if same && ip == c.up.Addr[f] {
			c.better[f] = target{}
			continue
		}
		if b := c.better[f]; b.index != next.Index || b.ip != ip {
			c.better[f] = target{next.Index, ip, now}
		}
		if same && ready(f) {
			c.take(s, f, link, ip, !c.atHome(link))
		}
	}
	if next.Index != c.up.Index && c.all(ready) {
		c.move(s, next, false)
	}
}

// wanted is the uplink without what is forced about it, as far as there is
// something better.
func (c *choice) wanted(s Snapshot) backend.Uplink {
	if c.all(func(f ipfam.Family) bool { return c.forced[f] }) {
		if next, ok := c.elsewhere(s); ok {
			return next
		}
	}
	next := c.up
	link, _ := s.linkByIndex(next.Index)
	for f, ip := range ipfam.Addrs(next.Addr) {
		if !c.forced[f] || !c.lost[f].IsZero() {
			continue
		}
		var better netip.Addr
		switch {
		case ip.IsLinkLocalUnicast():
			better = c.on(s, link, f, anyAddr)
		case c.atHome(link):
			better = c.onAgain(s, link, f)
		}
		if better.IsValid() {
			next.Addr[f] = better
		}
	}
	return next
}

// elsewhere returns what the selection finds on another interface, if that is not
// a last resort as well.
func (c *choice) elsewhere(s Snapshot) (backend.Uplink, bool) {
	next, given, err := find(c.options, s)
	if err != nil || next.Index == c.up.Index {
		return next, false
	}
	link, _ := s.linkByIndex(next.Index)
	for f := range ipfam.Addrs(next.Addr) {
		if ip := c.onAgain(s, link, f); ip.IsValid() && c.atHome(link) {
			next.Addr[f] = ip
		}
		if ip := next.Addr[f]; ip.IsLinkLocalUnicast() && ip != given[f] {
			return next, false
		}
	}
	return next, true
}

// take uses an address of an interface in one family.
func (c *choice) take(s Snapshot, f ipfam.Family, link Link, ip netip.Addr, forced bool) {
	c.up.Name, c.up.Index, c.up.MTU = link.Name, link.Index, link.MTU
	c.up.Addr[f] = ip
	c.settle(s, f, forced)
}

// move uses another interface.
func (c *choice) move(s Snapshot, up backend.Uplink, forced bool) {
	c.up = up
	for f := range ipfam.Addrs(up.Addr) {
		c.settle(s, f, forced)
	}
}

// settle ends the search in one family.
func (c *choice) settle(s Snapshot, f ipfam.Family, forced bool) {
	c.up.Public = c.options.public(c.up.Addr)
	c.lost[f], c.linkLocal[f], c.better[f] = time.Time{}, time.Time{}, target{}
	if c.forced[f] = forced; !forced {
		c.home.Name, c.home.Index, c.home.Addr[f] = c.up.Name, c.up.Index, c.up.Addr[f]
		c.seen[f] = s.Addrs
	}
}

func (c *choice) all(ok func(ipfam.Family) bool) bool {
	for f := range ipfam.Addrs(c.up.Addr) {
		if !ok(f) {
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
		return !a.IP.IsLinkLocalUnicast() && !slices.ContainsFunc(c.seen[f], was)
	})
}

func anyAddr(Addr) bool { return true }

// on returns the best address of one family on an interface that the flags allow
// and that fits. It takes the interface as settled, whatever the routes say, and
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
	for _, f := range ipfam.All() {
		consider(c.lost[f], c.grace)
		consider(c.linkLocal[f], c.grace)
		consider(c.better[f].since, c.stable)
	}
	return first
}
