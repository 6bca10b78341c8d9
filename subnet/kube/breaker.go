package kube

import (
	"context"
	"sync"
	"time"

	"flannel/internal/loop"
)

// apiBreaker is a circuit breaker: it lets requests through while the API server
// answers. When it does not, they all wait, and one cheap probe at a time finds
// out when it does again: thousands of nodes must not overload a server that is
// starting.
type apiBreaker struct {
	probe func(context.Context) error
	// down is called with the cause when requests begin to wait and with each
	// other cause, up when the last of them has been answered. They must not
	// block.
	down func(error)
	up   func()
	// probing is held by the request that probes.
	probing chan struct{}

	mu sync.Mutex
	// tripped means that requests wait.
	tripped bool
	// reported means that down was called last, and not up.
	reported bool
	// failing is how many requests were not answered and will be repeated. A
	// server whose store is unreachable answers the probe and nothing else.
	failing int
}

func newAPIBreaker(probe func(context.Context) error, down func(error), up func()) *apiBreaker {
	return &apiBreaker{probe: probe, down: down, up: up, probing: make(chan struct{}, 1)}
}

// newBackoff paces what is repeated against the API server: half of each delay
// is random, so that the nodes of a large cluster do not come at once.
func newBackoff() *loop.Backoff {
	return &loop.Backoff{First: 2 * time.Second, Last: 30 * time.Second, Jitter: 0.5}
}

// do makes a request as soon as the server answers, and repeats it if the
// server does not answer this one. Any answer is returned.
func (b *apiBreaker) do(ctx context.Context, request func(context.Context) error) error {
	failed, answered := 0, false
	defer func() { b.update(failed, answered) }()
	for backoff := newBackoff(); ; {
		if err := b.pass(ctx); err != nil {
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
		b.trip(err, 1-failed)
		failed = 1
		// The probe may be answered although this request is not.
		if err := backoff.Wait(ctx); err != nil {
			return err
		}
	}
}

// lost makes requests wait because a connection has ended over which nothing
// came back. The next request probes.
func (b *apiBreaker) lost(err error) { b.trip(err, 0) }

// trip makes requests wait; more is 1 if one more request is failing.
func (b *apiBreaker) trip(err error, more int) {
	b.mu.Lock()
	b.tripped, b.reported = true, true
	b.failing += more
	b.mu.Unlock()
	b.down(err)
}

// reset lets requests through.
func (b *apiBreaker) reset() {
	b.mu.Lock()
	b.tripped = false
	b.mu.Unlock()
	b.update(0, true)
}

// update notes that fewer requests are failing, and calls up if the server has
// answered and nothing waits for it any more.
func (b *apiBreaker) update(fewer int, answered bool) {
	b.mu.Lock()
	b.failing -= fewer
	up := answered && b.reported && !b.tripped && b.failing == 0
	if up {
		b.reported = false
	}
	b.mu.Unlock()
	if up {
		b.up()
	}
}

func (b *apiBreaker) isTripped() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tripped
}

// pass waits until requests are let through. One of those that wait probes.
func (b *apiBreaker) pass(ctx context.Context) error {
	if !b.isTripped() {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case b.probing <- struct{}{}:
	}
	defer func() { <-b.probing }()
	for backoff := newBackoff(); b.isTripped(); {
		err := b.probe(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !unanswered(err) {
			b.reset()
			return nil
		}
		b.down(err)
		if err := backoff.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}
