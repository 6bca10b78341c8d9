package probe

import (
	"slices"
	"time"

	"flannel/backend"
	"flannel/internal/ipfam"
)

// due returns the probe to be sent, if there is one, and else for how long
// nothing is to be done.
func (c *core) due(now time.Duration) (request, time.Duration, bool) {
	c.expire(now)
	c.takePut()
	if i, ok := c.pickAsked(now); ok {
		c.lastAsked = now
		return c.launch(i, now), 0, true
	}
	if now >= c.lastSent+interval || c.lastSent == 0 {
		c.lastSent = now
		if i, ok := c.pick(now); ok {
			return c.launch(i, now), 0, true
		}
	}
	return request{}, c.rest(now), false
}

// rest returns how long nothing is to be done.
func (c *core) rest(now time.Duration) time.Duration {
	next := c.lastSent + interval
	if len(c.asked) > 0 {
		next = min(next, max(now, c.lastAsked)+askedInterval)
	}
	for _, f := range c.flying {
		if !f.lost {
			next = min(next, f.deadline)
		}
	}
	return max(next-now, time.Millisecond)
}

// pickAsked returns the first of the peers that somebody asked for and whose answer
// is not waited for: so those that were begun have a verdict before others are
// begun. The largest size is looked for at one peer of each family, with every second
// probe.
func (c *core) pickAsked(now time.Duration) (found int32, ok bool) {
	if c.lastAsked > 0 && now < c.lastAsked+askedInterval {
		return 0, false
	}
	searcher, taken := int32(-1), ipfam.Pair[bool]{}
	for _, i := range c.asked {
		p, f := &c.peers[i], c.status[i].Family
		switch {
		case !p.searching():
			if !p.waiting && !ok {
				found, ok = i, true
			}
		case !taken[f]:
			if taken[f] = true; !p.waiting {
				searcher = i
			}
		}
	}
	if searcher >= 0 && (!ok || c.seq%2 == 0) {
		return searcher, true
	}
	return found, ok
}

// pick returns the peer that is next in the background: suspects before others,
// and of these the undecided first. As long as nobody has answered, one probe of
// each of many peers tells more than many of one.
func (c *core) pick(now time.Duration) (int32, bool) {
	c.turns++
	if i, ok := c.pickTouched(now); ok {
		return i, true
	}
	if c.lastAnswer == 0 && c.fresh > 0 && c.total()-c.fresh < contacts {
		return c.rotate()
	}
	if i, ok := c.least(c.suspects, func(p *peer, pr backend.Probe) bool {
		return !p.waiting && p.undecided(pr) && !p.searching()
	}); ok {
		return i, true
	}
	if c.turns%turnEvery != 0 {
		if i, ok := c.pickBroken(); ok {
			return i, true
		}
	}
	return c.rotate()
}

// pickTouched returns the first of the peers whose entries traffic has put.
func (c *core) pickTouched(now time.Duration) (int32, bool) {
	c.touched = slices.DeleteFunc(c.touched, func(t touched) bool {
		p := &c.peers[t.peer]
		if now > t.at+touchLimit {
			p.turns = 0
		}
		return p.turns == 0
	})
	for _, t := range c.touched {
		if p := &c.peers[t.peer]; !p.waiting {
			p.turns--
			return t.peer, true
		}
	}
	return 0, false
}

// pickBroken returns the next of the peers that are broken. The largest size is
// looked for at one peer after the other: the first result is likely that of all.
func (c *core) pickBroken() (found int32, ok bool) {
	for i := range c.suspects {
		if p := &c.peers[i]; p.searching() && p.smallLost == 0 && (!ok || i < found) {
			found, ok = i, true
		}
	}
	if ok && !c.peers[found].waiting {
		return found, true
	}
	return c.least(c.suspects, func(p *peer, _ backend.Probe) bool { return !p.waiting && !p.searching() })
}

// least returns the peer of a set that was probed least recently and may be
// probed.
func (c *core) least(set map[int32]struct{}, may func(*peer, backend.Probe) bool) (found int32, ok bool) {
	for i := range set {
		p := &c.peers[i]
		if may(p, c.status[i].Probe) && (!ok || p.sent < c.peers[found].sent || p.sent == c.peers[found].sent && i < found) {
			found, ok = i, true
		}
	}
	return found, ok
}

// rotate returns the next peer of the rotation; those that were never probed come
// first.
func (c *core) rotate() (int32, bool) {
	for range c.peers {
		if c.next >= len(c.peers) {
			c.next = 0
			c.rotations++
		}
		i := c.next
		c.next++
		p, s := &c.peers[i], &c.status[i]
		if !probed(s) || s.Probe.OnDemand || p.waiting || c.fresh > 0 && p.sent > 0 {
			continue
		}
		if c.rotations%fullEvery == 0 {
			p.fullDue = true
		}
		return int32(i), true
	}
	return 0, false
}
