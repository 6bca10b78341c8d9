package probe

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"flannel/backend"
)

// state is what the verdicts of all peers together mean for this node.
type state uint8

const (
	// works: nothing is known to be broken.
	works state = iota
	// some: peers that answered before have not done so for long.
	some
	// narrow: packets of the full size do not reach peers.
	narrow
	// none: no peer answers.
	none
)

// What lasts less than this is not reported: a peer that is restarted, or
// replaced by a later version, does not answer for a while. Several peers at
// once and packets of the full size alone are not lost by that.
const (
	settleOne  = 5 * time.Minute
	settleMany = time.Minute
)

// whole is what is reported of all peers together.
type whole struct {
	// shown is what was reported last; since is when no peer began not to answer.
	shown state
	since time.Duration
	text  string
}

const (
	// silence is how long nobody has answered when no peer answers any more: in
	// that time the rotation has come to peers that were fine.
	silence = 10 * time.Second
	// contacts is how many peers of a large network are asked before it is certain
	// that none answers: some may not, ever.
	contacts = 200
)

// noneAnswers reports whether no peer answers, or none does any more. If nobody
// has ever answered, only the addresses of devices prove that: a bridge need not
// be there.
func (c *core) noneAnswers(now time.Duration) bool {
	if c.lastAnswer > 0 {
		return now >= c.lastAnswer+silence && c.unanswered() >= min(c.count[fine]+c.count[broken]+c.count[brokenFull], enough)
	}
	return c.neverAnswers()
}

// unanswered counts the peers that are broken and were probed since anybody has
// answered.
func (c *core) unanswered() int {
	n := 0
	for i := range c.suspects {
		if p := &c.peers[i]; p.verdict == broken && p.sent > c.lastAnswer {
			n++
		}
	}
	return n
}

// neverAnswers reports whether nobody has answered since the start, although
// enough peers were asked. On demand those are asked that traffic goes to.
func (c *core) neverAnswers() bool {
	all := c.total()
	enoughAsked := c.common.OnDemand || all-c.fresh >= min(all, contacts)
	return c.lastAnswer == 0 && c.common.Device && enoughAsked && all > 0 && c.count[silent] >= min(all, enough)
}

func (c *core) total() int {
	all := 0
	for _, n := range c.count {
		all += n
	}
	return all
}

// assess updates what is to be reported; it reports whether that has changed.
func (c *core) assess(now time.Duration) bool {
	w := &c.whole
	is, text := c.summarize(now)
	if is == w.shown && text == w.text {
		return false
	}
	w.shown, w.text = is, text
	return true
}

// summarize returns what is to be reported.
func (c *core) summarize(now time.Duration) (state, string) {
	w := &c.whole
	if c.noneAnswers(now) {
		if w.since == 0 {
			w.since = now
		}
		settle := settleOne
		if c.count[silent]+c.count[broken]+c.count[brokenFull] >= enough {
			settle = settleMany
		}
		if now < w.since+settle {
			return w.shown, w.text
		}
		return none, "no peer answers: the way to the other nodes drops the packets of the overlay, or a firewall of this host does, " +
			"or this node's public address is wrong; /status says more of each peer"
	}
	w.since = 0
	is, narrowest := works, int32(-1)
	for i := range c.suspects {
		p := &c.peers[i]
		switch {
		case p.verdict == brokenFull && now >= p.since+settleMany:
			if is = narrow; narrowest < 0 || c.compareNarrow(i, narrowest) < 0 {
				narrowest = i
			}
		case is == works && p.verdict == broken && now >= p.since+settleOne:
			is = some
		}
	}
	switch is {
	case narrow:
		return is, "some peers do not get large packets: " + tooNarrow(&c.peers[narrowest], c.status[narrowest].Probe)
	case some:
		return is, "some peers that have answered do not answer any more; /status names them"
	}
	return is, ""
}

// compareNarrow orders peers that do not get large packets: what is enough for the
// first one is enough for all.
func (c *core) compareNarrow(a, b int32) int {
	carries := func(i int32) int32 {
		if c.peers[i].largest == 0 {
			return math.MaxInt32
		}
		return c.peers[i].largest + c.status[i].Probe.Overhead
	}
	return cmp.Or(cmp.Compare(carries(a), carries(b)), cmp.Compare(c.status[b].Probe.MTU, c.status[a].Probe.MTU))
}

// tooNarrow reports that only small packets arrive, and what to do.
func tooNarrow(p *peer, pr backend.Probe) string {
	text := fmt.Sprintf("packets of %d bytes are lost on the way, small ones are not", pr.MTU)
	if p.largest == 0 {
		return text
	}
	text += fmt.Sprintf("; the largest that arrive have %d bytes: ", p.largest)
	if pr.MTUKey {
		return text + fmt.Sprintf("set Backend.MTU to %d", p.largest+pr.Overhead)
	}
	return text + fmt.Sprintf("set the MTU of the nodes' uplinks to %d", p.largest+pr.Overhead)
}

// verdictOf returns the verdict of a peer, its cause, and one line that explains it.
func (c *core) verdictOf(i int32, now time.Duration) (backend.Verdict, backend.Cause, string) {
	p, s := &c.peers[i], &c.status[i]
	v := p.verdict
	if v == silent && s.Probe.Device && c.neverAnswers() {
		v = broken
	}
	cause, why := explain(p, s, v, now)
	return verdictNames[v], cause, why
}

func explain(p *peer, s *backend.PeerStatus, v verdict, now time.Duration) (backend.Cause, string) {
	switch {
	case p.tooLong:
		return backend.Local, fmt.Sprintf("packets of %d bytes do not leave this host (%v): a route or a device has a smaller MTU", s.Probe.MTU, p.local)
	case p.local != nil:
		return backend.Local, fmt.Sprintf("packets do not leave this host: %v", p.local)
	case v == fine || v == unknown:
		return "", ""
	case v == brokenFull:
		return backend.TooLarge, tooNarrow(p, s.Probe)
	case p.wayBack(now):
		return backend.WayThere, "no answer, but its own probes arrive here: the way there is cut, the way back works"
	case v == broken:
		return backend.NoAnswer, fmt.Sprintf("no answer: the way to %s or a firewall of a host drops the packets, the peer or its device is gone, or %s is not its address",
			s.Via, s.Via)
	case !s.Probe.Device:
		return backend.NoAnswer, "it has never answered: it has no pods yet, the way there is broken, or something drops echo requests"
	}
	return backend.NoAnswer, "it has never answered: the way there is broken, or something drops echo requests"
}

// recent is how long a peer's probe counts as a sign that the way back works.
const recent = time.Minute

// wayBack reports whether the peer's probes arrive here although its answers do
// not.
func (p *peer) wayBack(now time.Duration) bool {
	return (p.verdict == broken || p.verdict == silent) && p.heard > p.lost && now-p.heard < recent
}
