package probe

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"flannel/backend"
	"flannel/internal/ipfam"
)

const (
	// interval is the least time between two probes that nobody has asked for.
	interval = time.Second
	// askedInterval is that between two probes that somebody has asked for.
	askedInterval = time.Second / 20
	// askedLimit is how long at most a peer is probed on request.
	askedLimit = 5 * time.Second
	// timeout is when a probe counts as lost. What somebody waits for may be given up
	// earlier, in relation to the round trip.
	timeout         = time.Second
	askedTimeout    = timeout / 2
	askedTimeoutMin = 150 * time.Millisecond
	// late is how long an answer counts after the probe was given up.
	late = 10 * time.Second
	// fullEvery is how often a rotation tries the full size.
	fullEvery = 10
	// One of turnEvery probes continues the rotation although peers are broken.
	turnEvery = 4
)

// core decides when which peer is probed and what the answers mean. It does no
// I/O and reads no clock: times are since the start, and positive.
type core struct {
	// status are the peers of the last pass, which are not to be changed; peers
	// are what is known of each.
	status []backend.PeerStatus
	peers  []peer
	// families are those that have peers to probe.
	families ipfam.Pair[bool]
	// suspects are the peers that are broken or undecided.
	suspects map[int32]struct{}
	// asked are the peers that somebody asked for: the first ones come first, so
	// that they have a verdict when the time is over.
	asked []int32
	// searched is when the largest size was found that gets to one of them, in each
	// family.
	searched ipfam.Pair[time.Duration]
	// put are the subnets of on-demand peers whose entries were just put, touched
	// the peers of those that traffic has put.
	put     []put
	touched []touched
	// index leads from addresses to peers; nil until find needs it.
	index  map[netip.Addr]int32
	flying []flight
	seq    uint16
	// next is the one that the rotation comes to; fresh is how many peers were
	// never probed. rotations counts the rotations, turns the probes.
	next, fresh int
	// common is what is probed of a peer, which is much the same for all.
	common backend.Probe
	// lastAnswer is when any peer has answered last.
	lastAnswer       time.Duration
	rotations, turns int
	// lastSent is that of the last probe that nobody has asked for.
	lastSent, lastAsked time.Duration
	// heardNow counts the probes of others in the second that hearing names.
	hearing  time.Duration
	heardNow int
	// lost counts the probes that were not answered, count the peers by verdict.
	lost  int
	count [verdicts]int
	whole whole
}

// flight is a probe that was sent.
type flight struct {
	seq      uint16
	peer     int32
	size     int32
	bridge   bool
	sent     time.Duration
	deadline time.Duration
	lost     bool
}

// put is a subnet, and when its entries were put.
type put struct {
	subnet netip.Prefix
	at     time.Duration
}

// touched is a peer whose entries traffic has put, and when.
type touched struct {
	peer int32
	at   time.Duration
}

// Peers beyond maxTouched are not probed after their entries were put, and none is
// later than touchLimit: else probes would keep entries in use that are kept for
// minutes after traffic.
const (
	maxTouched = 20
	touchLimit = maxTouched * enough * interval
)

// request is a probe to be sent.
type request struct {
	seq  uint16
	peer int32
	size int32
	to   netip.Addr
}

func newCore() *core { return &core{suspects: map[int32]struct{}{}} }

// probed reports whether a peer has something to probe.
func probed(s *backend.PeerStatus) bool {
	device, bridge := s.Probe.Addrs(s.Subnet)
	return (device.IsValid() || bridge.IsValid()) && (s.How == backend.Tunnel || s.How == backend.Direct)
}

// launch notes that a probe is sent.
func (c *core) launch(i int32, now time.Duration) request {
	p, s := &c.peers[i], &c.status[i]
	c.seq++
	f := flight{seq: c.seq, peer: i, size: p.size(s.Probe), sent: now, deadline: now + timeout}
	if p.asked > 0 {
		f.deadline = now + p.patience(s.Probe, f.size)
	}
	device, bridge := s.Probe.Addrs(s.Subnet)
	f.bridge = p.atBridge(s.Probe) && bridge.IsValid()
	to := device
	if f.bridge {
		to = bridge
	}
	if p.sent == 0 {
		c.fresh--
	}
	p.sent, p.waiting = now, true
	c.flying = append(c.flying, f)
	return request{seq: f.seq, peer: i, size: f.size, to: to}
}

// failed notes that a probe could not be sent. If only its size is to blame, that
// is no loss.
func (c *core) failed(seq uint16, err error, now time.Duration) {
	for k := range c.flying {
		f := &c.flying[k]
		if f.seq != seq || f.lost {
			continue
		}
		p := &c.peers[f.peer]
		p.waiting = false
		if errors.Is(err, unix.EMSGSIZE) && f.size > small {
			p.fail(err)
		} else {
			p.local = err
			p.lose(f.size, f.sent)
		}
		f.lost = true
		c.decide(f.peer, now)
		return
	}
}

// expire gives up the probes whose time is over.
func (c *core) expire(now time.Duration) {
	keep := c.flying[:0]
	for _, f := range c.flying {
		if !f.lost && now >= f.deadline {
			f.lost = true
			p := &c.peers[f.peer]
			p.waiting = false
			p.leave(c.status[f.peer].Probe, f.size)
			p.lose(f.size, f.sent)
			c.lost++
			c.decide(f.peer, now)
		}
		if now < f.sent+late {
			keep = append(keep, f)
		}
	}
	c.flying = keep
	c.settle(now)
}

// answered notes an answer; it reports false for one that nobody waits for.
func (c *core) answered(from netip.Addr, seq uint16, now time.Duration) (time.Duration, bool) {
	for k, f := range c.flying {
		if f.seq != seq {
			continue
		}
		p, s := &c.peers[f.peer], &c.status[f.peer]
		device, bridge := s.Probe.Addrs(s.Subnet)
		if f.bridge && from != bridge || !f.bridge && from != device {
			return 0, false
		}
		p.bridge = f.bridge && s.Probe.Device
		p.roundTrip, c.lastAnswer = now-f.sent, now
		p.answer(s.Probe, f.size, now)
		if !f.lost {
			p.waiting = false
		}
		c.flying = append(c.flying[:k], c.flying[k+1:]...)
		c.decide(f.peer, now)
		return now - f.sent, true
	}
	return 0, false
}

// maxHeard bounds what probes of others cost in a second. Each node sends one.
const maxHeard = 200

// mayHear reports whether more probes of others may be heard in this second.
func (c *core) mayHear(now time.Duration) bool {
	return now/time.Second != c.hearing || c.heardNow < maxHeard
}

// heard notes an echo request of a peer's daemon.
func (c *core) heard(from netip.Addr, now time.Duration) {
	if !c.mayHear(now) {
		return
	}
	if second := now / time.Second; second != c.hearing {
		c.hearing, c.heardNow = second, 0
	}
	c.heardNow++
	// The bridge has the address after the first one of the subnet.
	for _, addr := range []netip.Addr{from, from.Prev()} {
		i, ok := c.find(addr)
		if !ok {
			continue
		}
		s := &c.status[i]
		if device, bridge := s.Probe.Addrs(s.Subnet); from == device || from == bridge || from == s.Via {
			c.peers[i].heard = now
		}
	}
}

// decide updates the verdict of a peer after something has happened to it.
func (c *core) decide(i int32, now time.Duration) {
	p, pr := &c.peers[i], c.status[i].Probe
	if v := p.next(pr); v != p.verdict {
		c.count[p.verdict]--
		c.count[v]++
		if verdictNames[v] != verdictNames[p.verdict] {
			p.since = now
		}
		p.verdict = v
	}
	if !pr.OnDemand && (p.verdict.isBroken() || p.undecided(pr)) {
		c.suspects[i] = struct{}{}
	} else {
		delete(c.suspects, i)
	}
	c.settle(now)
}

// touch notes that the entries of a peer were put. Whoever calls it has a packet
// waiting: takePut looks for the peer.
func (c *core) touch(subnet netip.Prefix, now time.Duration) {
	if len(c.put)+len(c.touched) < maxTouched {
		c.put = append(c.put, put{subnet, now})
	}
}

// takePut finds the peers whose entries were put for traffic. Those that a probe of
// this node has just had put are none: else it would never end.
func (c *core) takePut() {
	for _, t := range c.put {
		i, ok := c.findSubnet(t.subnet)
		if !ok {
			continue
		}
		if p := &c.peers[i]; p.turns == 0 && p.asked == 0 && (p.sent == 0 || t.at >= p.sent+timeout) {
			p.touch()
			c.touched = append(c.touched, touched{i, t.at})
		}
	}
	c.put = c.put[:0]
}

// ask has a peer probed immediately.
func (c *core) ask(i int32, now time.Duration) {
	if c.peers[i].asked == 0 {
		c.peers[i].ask(now)
		c.asked = append(c.asked, i)
	}
}

// settle ends what somebody asked for when it has shown what it can, or when there
// is no time left for that.
func (c *core) settle(now time.Duration) {
	c.asked = slices.DeleteFunc(c.asked, func(i int32) bool {
		p, pr := &c.peers[i], c.status[i].Probe
		settled, searched := p.settled(pr), &c.searched[c.status[i].Family]
		if settled && p.fullLost > 0 {
			*searched = now
		}
		end := p.asked + askedLimit
		tooLate := now >= end || !p.begun() && !p.waiting && now+p.need(pr) > end
		over := settled || tooLate || p.searching() && *searched >= p.asked
		if over {
			p.asked = 0
		}
		return over
	})
}
