// Package probe finds out whether every peer is reached through the overlay, and
// at the full size: it sends echo requests to addresses that the peers' kernels
// answer.
package probe

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/backend"
	"flannel/internal/health"
	"flannel/internal/ipfam"
	"flannel/internal/logonce"
	"flannel/internal/loop"
)

// Metrics takes what probes have measured. Its methods never block.
type Metrics interface {
	// ProbeAnswered takes the round trip of a probe.
	ProbeAnswered(roundTrip time.Duration)
	// ProbesLost takes how many probes more were not answered.
	ProbesLost(n int)
	// ProbedPeers takes how many peers have a verdict.
	ProbedPeers(verdict string, n int)
}

// Options is what a Prober is built from.
type Options struct {
	Log     *slog.Logger
	Metrics Metrics
	// Report takes what is wrong with the peers as a whole, one line that names
	// none of them, whenever it changes; it is empty if nothing is. It must not
	// block.
	Report func(problem string)
	// Loop is told what Run does; it may be nil.
	Loop *health.Loop

	open func(context.Context, ipfam.Family, uint16) (socket, error) // nil means open
}

// Prober probes the peers of a daemon. All methods may be called by several
// goroutines.
type Prober struct {
	options Options
	start   time.Time
	id      uint16
	wake    loop.Signal

	mu   sync.Mutex
	core *core
	// unable is why nothing can be probed.
	unable error
	// waiting are those who wait for what they have asked for.
	waiting map[loop.Signal]struct{}
	// deaf is whether a socket does not hear probes of others for the moment.
	deaf ipfam.Pair[bool]
}

// New returns a Prober that does nothing until Run.
func New(o Options) *Prober {
	if o.open == nil {
		o.open = open
	}
	return &Prober{
		options: o,
		start:   time.Now().Add(-time.Nanosecond), // 0 means never
		id:      uint16(1 + rand.N(1<<16-1)),
		wake:    loop.NewSignal(),
		core:    newCore(),
		waiting: map[loop.Signal]struct{}{},
	}
}

func (p *Prober) now() time.Duration { return time.Since(p.start) }

// SetPeers takes the peers of a pass, which nobody may change afterwards. It does
// not block.
func (p *Prober) SetPeers(status []backend.PeerStatus) {
	p.mu.Lock()
	p.core.setPeers(status)
	p.mu.Unlock()
	p.wake.Send()
}

// Touch notes that traffic has put the entries of an on-demand peer. It does not
// block.
func (p *Prober) Touch(subnet netip.Prefix) {
	p.mu.Lock()
	p.core.touch(subnet, p.now())
	p.mu.Unlock()
}

// Run probes until ctx ends. What keeps it from that is logged once and tried
// again.
func (p *Prober) Run(ctx context.Context) error {
	failures := logonce.Words{
		Level: slog.LevelWarn, Begins: "peers cannot be probed", Ends: "peers are probed again",
	}.NewFailures(p.options.Log)
	retry := loop.Backoff{First: time.Second, Last: time.Minute}
	for ctx.Err() == nil {
		err := p.probe(ctx, func() {
			failures.OK("probe")
			retry.Reset()
		})
		if ctx.Err() != nil {
			break
		}
		p.mu.Lock()
		p.unable = err
		p.mu.Unlock()
		p.notify()
		failures.Fail("probe", err)
		_ = retry.Wait(ctx)
	}
	return ctx.Err()
}

// probe opens the sockets that the peers need, and probes until one of them
// fails.
func (p *Prober) probe(ctx context.Context, works func()) error {
	group, ctx := errgroup.WithContext(ctx)
	sockets := ipfam.Pair[socket]{}
	group.Go(func() error {
		defer func() {
			for _, s := range sockets {
				if s != nil {
					s.Close()
				}
			}
		}()
		for {
			p.options.Loop.Works()
			wait, err := p.step(ctx, group, &sockets)
			p.options.Loop.Waits()
			if err != nil {
				return err
			}
			if p.able(sockets) {
				works()
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-p.wake:
			case <-time.After(wait):
			}
		}
	})
	return group.Wait()
}

// able notes that there is a socket.
func (p *Prober) able(sockets ipfam.Pair[socket]) bool {
	if sockets == (ipfam.Pair[socket]{}) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unable = nil
	return true
}

// step sends one probe, if one is due, and returns for how long nothing is to be
// done.
func (p *Prober) step(ctx context.Context, group *errgroup.Group, sockets *ipfam.Pair[socket]) (time.Duration, error) {
	if err := p.openSockets(ctx, group, sockets); err != nil {
		return 0, err
	}
	if err := p.listen(sockets); err != nil {
		return 0, err
	}
	p.mu.Lock()
	lost := p.core.lost
	r, wait, ok := p.core.due(p.now())
	lost = p.core.lost - lost
	p.mu.Unlock()
	p.options.Metrics.ProbesLost(lost)
	if ok {
		if err := sockets[ipfam.Of(r.to)].send(r.to, r.seq, int(r.size)); err != nil {
			p.mu.Lock()
			p.core.failed(r.seq, err, p.now())
			p.mu.Unlock()
		}
		wait = 0
	}
	p.report()
	p.notify()
	return wait, nil
}

// listen has the sockets hear probes of others again, a second after there were too
// many.
func (p *Prober) listen(sockets *ipfam.Pair[socket]) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.core.mayHear(p.now()) {
		return nil
	}
	for f, s := range sockets.Each() {
		if s == nil || !p.deaf[f] {
			continue
		}
		if err := s.hear(true); err != nil {
			return err
		}
		p.deaf[f] = false
	}
	return nil
}

// openSockets opens the socket of each family that has peers to probe.
func (p *Prober) openSockets(ctx context.Context, group *errgroup.Group, sockets *ipfam.Pair[socket]) error {
	p.mu.Lock()
	families := p.core.families
	p.mu.Unlock()
	for f, needed := range families.Each() {
		if !needed || sockets[f] != nil {
			continue
		}
		s, err := p.options.open(ctx, f, p.id)
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.deaf[f] = false
		p.mu.Unlock()
		sockets[f] = s
		group.Go(func() error { return p.receive(f, s) })
	}
	return nil
}

// receive takes what arrives until the socket is closed.
func (p *Prober) receive(f ipfam.Family, s socket) error {
	for {
		m, err := s.receive()
		if err != nil {
			return err
		}
		p.mu.Lock()
		now := p.now()
		roundTrip, answered := time.Duration(0), false
		if m.request {
			p.core.heard(m.from, now)
			if !p.deaf[f] && !p.core.mayHear(now) {
				p.deaf[f], err = true, s.hear(false) // under the lock, as listen does
			}
		} else {
			roundTrip, answered = p.core.answered(m.from, m.seq, now)
		}
		hurry := len(p.waiting) > 0
		p.mu.Unlock()
		if err != nil {
			return err
		}
		if answered {
			p.options.Metrics.ProbeAnswered(roundTrip)
		}
		if hurry {
			p.wake.Send()
		}
	}
}

// report reports what has changed.
func (p *Prober) report() {
	p.mu.Lock()
	changed := p.core.assess(p.now())
	is, text, count := p.core.whole.shown, p.core.whole.text, p.core.count
	if p.core.neverAnswers() {
		count[broken], count[silent] = count[broken]+count[silent], 0
	}
	p.mu.Unlock()
	count[broken] += count[brokenFull]
	for v, n := range count[:brokenFull] {
		p.options.Metrics.ProbedPeers(string(verdictNames[v]), n)
	}
	if !changed {
		return
	}
	if is == works {
		p.options.Log.Info("probes succeed again")
	} else {
		p.options.Log.Warn("probes fail", "problem", text)
	}
	p.options.Report(text)
}

// notify wakes those who wait for an answer.
func (p *Prober) notify() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.waiting {
		w.Send()
	}
}

// Probed returns what probes have shown of each of these peers, in their order;
// the zero Probed where that is nothing yet.
func (p *Prober) Probed(status []backend.PeerStatus) []backend.Probed {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]backend.Probed, len(status))
	for k := range status {
		if i, ok := p.core.findStatus(&status[k]); ok {
			out[k] = p.probedLocked(i)
		}
	}
	return out
}

// probedLocked returns what is known of a peer.
func (p *Prober) probedLocked(i int32) backend.Probed {
	c := &p.core.peers[i]
	if c.verdict == unknown {
		return backend.Probed{}
	}
	now := p.now()
	out := backend.Probed{
		At:        p.start.Add(c.sent),
		RoundTrip: c.roundTrip.Seconds(),
		Largest:   int(c.largest),
		WayBack:   c.wayBack(now),
	}
	out.Verdict, out.Cause, out.Why = p.core.verdictOf(i, now)
	if c.answered > 0 {
		at := p.start.Add(c.answered)
		out.Answered = &at
	}
	return out
}
