package kube

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"flannel/internal/wait"
)

// gate lets requests through while the API server answers. When it does not,
// they all wait, and one cheap probe at a time finds out when it does again:
// thousands of nodes must not trample a server that is coming up.
type gate struct {
	probe func(context.Context) error
	// shut is called with the cause when requests begin to wait and with each
	// other cause, opened when the last of them has been answered. They must
	// not block.
	shut   func(error)
	opened func()
	// probing is held by the one who probes.
	probing chan struct{}

	mu     sync.Mutex
	closed bool
	// waiting says that shut was called last, and not opened.
	waiting bool
	// failing is how many requests were not answered and are made again. A
	// server whose store is away answers the probe and nothing else.
	failing int
}

func newGate(probe func(context.Context) error, shut func(error), opened func()) *gate {
	return &gate{probe: probe, shut: shut, opened: opened, probing: make(chan struct{}, 1)}
}

// do makes a request as soon as the server answers, and again if it does not
// answer this one. Any answer is returned.
func (g *gate) do(ctx context.Context, request func(context.Context) error) error {
	failed := 0
	answered := false
	defer func() { g.done(failed, answered) }()
	for retry := newRetry(); ; {
		if err := g.pass(ctx); err != nil {
			return err
		}
		err := request(ctx)
		if err == nil || !unanswered(err) {
			answered = true
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		g.close(err, 1-failed)
		failed = 1
		// The probe may be answered while this request is not.
		if err := retry.wait(ctx); err != nil {
			return err
		}
	}
}

// close makes requests wait because one, or one more, has failed.
func (g *gate) close(err error, more int) {
	g.mu.Lock()
	g.closed, g.waiting = true, true
	g.failing += more
	g.mu.Unlock()
	g.shut(err)
}

// lost makes requests wait because a connection has ended over which nothing
// came back. Whoever asks next finds out whether that is over.
func (g *gate) lost(err error) { g.close(err, 0) }

// open lets requests through.
func (g *gate) open() {
	g.mu.Lock()
	g.closed = false
	over := g.overLocked()
	g.mu.Unlock()
	if over {
		g.opened()
	}
}

// done is called at the end of a request that counts as failed so often.
func (g *gate) done(failed int, answered bool) {
	g.mu.Lock()
	g.failing -= failed
	over := answered && !g.closed && g.overLocked()
	g.mu.Unlock()
	if over {
		g.opened()
	}
}

// overLocked reports whether the waiting is over, once.
func (g *gate) overLocked() bool {
	over := g.waiting && g.failing == 0
	g.waiting = g.waiting && !over
	return over
}

func (g *gate) isClosed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// pass waits until the gate is open. One of those who wait probes.
func (g *gate) pass(ctx context.Context) error {
	if !g.isClosed() {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case g.probing <- struct{}{}:
	}
	defer func() { <-g.probing }()
	for retry := newRetry(); g.isClosed(); {
		err := g.probe(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if unanswered(err) {
			g.shut(err)
			if err := retry.wait(ctx); err != nil {
				return err
			}
			continue
		}
		g.open()
	}
	return nil
}

// retry paces what is tried again: each wait is drawn from around a middle
// that doubles, from 1 s at least to 30 s at most.
type retry struct{ middle time.Duration }

const (
	firstMiddle   = 1500 * time.Millisecond
	longestMiddle = 22500 * time.Millisecond
)

func newRetry() *retry { return &retry{firstMiddle} }

// next draws the next wait: two thirds to four thirds of the middle.
func (r *retry) next() time.Duration {
	d := r.middle*2/3 + rand.N(r.middle*2/3)
	r.middle = min(2*r.middle, longestMiddle)
	return d
}

func (r *retry) wait(ctx context.Context) error { return wait.For(ctx, r.next()) }
