package loop

import (
	"cmp"
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is the delay before something that failed is tried again. It doubles
// with each failure. The zero Backoff is ready for use, by one goroutine.
type Backoff struct {
	// First and Last bound the delay; 0 means one second and thirty seconds.
	First, Last time.Duration
	// Jitter is the part of each delay that is drawn at random, so that many
	// nodes do not come at the same moment; 0 means a fifth.
	Jitter float64

	next time.Duration
}

const (
	defaultFirst  = time.Second
	defaultLast   = 30 * time.Second
	defaultJitter = 0.2
)

// Next returns the delay before the next try.
func (b *Backoff) Next() time.Duration {
	delay := b.next
	if delay == 0 {
		delay = cmp.Or(b.First, defaultFirst)
	}
	b.next = min(2*delay, cmp.Or(b.Last, defaultLast))
	return delay - time.Duration(rand.Float64()*cmp.Or(b.Jitter, defaultJitter)*float64(delay))
}

// Reset makes the next delay the first one again.
func (b *Backoff) Reset() { b.next = 0 }

// Wait blocks for the next delay, or until ctx ends: then it returns the error
// of ctx.
func (b *Backoff) Wait(ctx context.Context) error { return Wait(ctx, b.Next()) }
