package probe

import (
	"time"

	"flannel/backend"
)

const (
	// enough losses one after the other are no accident.
	enough = 3
	// small is the size of a small probe with its IP header, in bytes.
	small = 84
	// precision is how exactly the largest size is found, in bytes; each size is
	// tried twice before it counts as too large.
	precision = 1
	tries     = 2
)

// peer is what probes of one peer in one family have shown. Times are since the
// start; 0 is never.
type peer struct {
	// sent is when the last probe was sent, answered when one was answered,
	// heard when the peer itself probed this node.
	sent, answered, heard time.Duration
	// lost is when the first of the probes was sent that are not answered.
	lost time.Duration
	// since is when the verdict became what it is, asked when somebody asked for
	// probes of this peer.
	since, asked time.Duration
	roundTrip    time.Duration
	// local is what keeps packets from leaving this host; tooLong is whether it
	// keeps only those of the full size.
	local   error
	tooLong bool
	// low and high enclose the largest size that gets through, once the full one
	// is known not to; missed counts the losses of the size in between. largest is
	// what the last search has found, 0 if that is nothing.
	low, high, largest int32
	missed             uint8
	// smallLost and fullLost count losses one after the other.
	smallLost, fullLost uint8
	// turns are probes that are due although the entries are on demand.
	turns uint8
	// fullDue is whether the full size is to be tried, confirmed whether a small
	// probe was answered since the full size was lost.
	fullDue, confirmed bool
	// bridge is whether the peer's bridge has answered and its device never has.
	bridge bool
	// waiting is whether a probe is under way.
	waiting bool
	verdict verdict
}

// verdict is a backend.Verdict in one byte. It stays until answers or losses show
// something else: a new round of probes by itself changes nothing.
type verdict uint8

const (
	unknown verdict = iota
	fine
	silent
	// broken: it has answered and does not any more.
	broken
	// brokenFull: it answers, but not packets of the full size.
	brokenFull
	verdicts
)

var verdictNames = [verdicts]backend.Verdict{
	unknown: "unknown", fine: backend.Fine, silent: backend.Silent, broken: backend.Broken, brokenFull: backend.Broken,
}

func (v verdict) isBroken() bool { return verdictNames[v] == backend.Broken }

// limit is how many small probes are lost before a verdict. Where two addresses
// may answer and the first has never done so, they are asked in turn.
func (p *peer) limit(pr backend.Probe) uint8 {
	if p.asksBoth(pr) {
		return 2 * enough
	}
	return enough
}

func (p *peer) asksBoth(pr backend.Probe) bool {
	return pr.Device && pr.Bridge && (p.answered == 0 || p.bridge)
}

// atBridge reports whether the next probe goes to the bridge.
func (p *peer) atBridge(pr backend.Probe) bool {
	if !p.asksBoth(pr) {
		return !pr.Device
	}
	return (p.smallLost%2 == 1) != p.bridge
}

// size returns that of the next probe.
func (p *peer) size(pr backend.Probe) int32 {
	full := min(pr.MTU, 65535)
	switch {
	case p.smallLost > 0 || p.fullLost > 0 && !p.confirmed || full <= small:
		return small
	case p.searching():
		return (p.low + p.high) / 2
	case p.fullLost > 0 || p.fullDue && (p.answered > 0 || !pr.OnDemand):
		return full
	}
	return small
}

// searching reports whether the largest size is being looked for.
func (p *peer) searching() bool {
	return p.fullLost >= enough && p.confirmed && p.high-p.low > precision
}

// enclose sets what encloses the largest size that gets through.
func (p *peer) enclose(low, high int32) {
	p.low, p.high, p.missed = low, high, 0
	if high > 0 && high-low <= precision {
		p.largest = low
	}
}

// leave notes that a probe of this size has left this host.
func (p *peer) leave(pr backend.Probe, size int32) {
	if !p.tooLong || size >= pr.MTU {
		p.local, p.tooLong = nil, false
	}
}

// answer notes an answer to a probe of this size.
func (p *peer) answer(pr backend.Probe, size int32, now time.Duration) {
	p.answered, p.lost, p.smallLost = now, 0, 0
	p.leave(pr, size)
	switch full := min(pr.MTU, 65535); {
	case size >= full:
		p.fullLost, p.largest = 0, 0
		p.enclose(0, 0)
		p.fullDue, p.confirmed = false, false
	case size == small:
		if p.confirmed = true; p.fullLost >= enough && p.high == 0 {
			p.enclose(small, full)
		}
	case p.searching() && size > p.low:
		p.enclose(size, p.high)
	}
}

// lose notes that a probe of this size, sent at a time, was not answered.
func (p *peer) lose(size int32, sent time.Duration) {
	if p.lost == 0 {
		p.lost = sent
	}
	switch {
	case size == small:
		// Beyond every limit the two addresses still take turns.
		if p.smallLost++; p.smallLost > 2*enough+1 {
			p.smallLost -= 2
		}
	case p.searching():
		if p.missed++; p.missed >= tries {
			p.enclose(p.low, size)
		}
	default:
		p.fullLost, p.confirmed = min(p.fullLost+1, enough), false
	}
}

// fail notes that a packet of the full size does not leave this host: that means
// nothing for the peer.
func (p *peer) fail(err error) {
	p.local, p.tooLong = err, true
	p.forgetFull(false)
}

// forgetFull forgets what is known of the full size; due is whether it is to be
// tried.
func (p *peer) forgetFull(due bool) {
	p.fullDue, p.fullLost, p.largest = due, 0, 0
	p.enclose(0, 0)
}

// next returns the verdict; what is not decided yet leaves it as it was.
func (p *peer) next(pr backend.Probe) verdict {
	switch {
	case p.smallLost >= p.limit(pr) && p.answered > 0:
		return broken
	case p.smallLost >= p.limit(pr):
		return silent
	case p.smallLost == 0 && p.fullLost >= enough:
		return brokenFull
	case p.verdict == broken && p.lost == 0:
		return fine
	case p.undecided(pr) || p.answered == 0 || p.lost > 0:
		return p.verdict
	}
	return fine
}

// undecided reports whether a probe was lost and others are to show what that
// means.
func (p *peer) undecided(pr backend.Probe) bool {
	if p.smallLost > 0 {
		return p.smallLost < p.limit(pr)
	}
	return p.fullLost > 0 && p.fullLost < enough || p.searching()
}

// settled reports whether the probes that somebody asked for have shown what
// they can.
func (p *peer) settled(pr backend.Probe) bool {
	switch {
	case p.waiting || p.sent < p.asked:
		return false
	case p.smallLost > 0:
		return p.smallLost >= p.limit(pr)
	case p.fullLost > 0:
		return p.fullLost >= enough && p.confirmed && !p.searching()
	}
	return p.answered >= p.asked && !p.fullDue
}

// touch begins the probes of a peer whose entries traffic has just put.
func (p *peer) touch() { p.turns, p.smallLost = enough, 0 }

// ask begins probes that somebody asks for: the evidence is gathered anew, and
// until there is enough the verdict stays.
func (p *peer) ask(now time.Duration) {
	p.asked, p.fullDue = now, true
	p.fullLost, p.smallLost = 0, 0
	p.enclose(0, 0)
}

// begun reports whether the peer was probed since somebody asked.
func (p *peer) begun() bool { return p.sent >= p.asked }

// patience is how long an answer is waited for that somebody wants soon. Small probes
// decide whether a peer is broken that was not: they wait as long as those of ping do,
// as far as the limit allows. Before a large one a small one was answered.
func (p *peer) patience(pr backend.Probe, size int32) time.Duration {
	if size == small && p.verdict != broken && p.verdict != silent {
		return min(timeout, askedLimit/time.Duration(1+p.limit(pr)))
	}
	return p.usual()
}

// usual is how long an answer takes at most if the path is as it was.
func (p *peer) usual() time.Duration {
	if p.roundTrip > 0 {
		return min(max(4*p.roundTrip, askedTimeoutMin), timeout)
	}
	return askedTimeout
}

// need is how long it takes until the peer has a verdict if it does what it did
// before. In the first second each may be begun.
func (p *peer) need(pr backend.Probe) time.Duration {
	if p.verdict == fine || p.verdict == unknown {
		return p.usual()
	}
	return min(time.Duration(1+p.limit(pr))*(p.usual()+askedInterval), askedLimit-time.Second)
}
