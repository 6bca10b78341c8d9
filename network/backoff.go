package network

import (
	"context"
	"math/rand/v2"
	"time"

	"flannel/internal/wait"
)

// Retries start after firstRetry and grow to lastRetry.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// backoff doubles a delay with each failure.
type backoff struct{ delay time.Duration }

func newBackoff() *backoff { return &backoff{firstRetry} }

// fail returns the delay to wait, with up to a fifth of jitter, and doubles
// the one after it.
func (b *backoff) fail() time.Duration {
	d := b.delay
	b.delay = min(2*b.delay, lastRetry)
	return d - rand.N(d/5)
}

func (b *backoff) reset() { b.delay = firstRetry }

// wait blocks for the delay or until ctx ends.
func (b *backoff) wait(ctx context.Context) error {
	return wait.For(ctx, b.fail())
}
