// Package loop holds what control loops share: how they are woken, how they
// pace their passes and their retries, and how they stop fighting another
// daemon over one record.
package loop

import (
	"context"
	"time"
)

// Signal wakes whoever receives from it. Signals that are sent before one is
// received are one. Make it with NewSignal.
type Signal chan struct{}

// NewSignal returns a signal that nobody has sent yet.
func NewSignal() Signal { return make(Signal, 1) }

// Send wakes the receiver. It never blocks and may be called by several
// goroutines.
func (s Signal) Send() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Clear takes back what was sent and not received yet.
func (s Signal) Clear() {
	select {
	case <-s:
	default:
	}
}

// After a pass the loop rests restFactor times as long as the pass took, at
// most maxRest: this bounds what passes cost while events keep coming.
const (
	restFactor = 4
	maxRest    = time.Second
)

// Loop paces the passes of a control loop. The loop itself selects what leads
// to a pass, Again among it:
//
//	for {
//		select {
//		case <-ctx.Done():
//			return ctx.Err()
//		case <-changed:
//		case <-l.Again():
//		}
//		if err := l.Pass(ctx, pass); err != nil {
//			return err
//		}
//	}
//
// The zero Loop is ready for use, by one goroutine.
type Loop struct {
	// Retry paces the repetition of passes that have failed.
	Retry Backoff

	again <-chan time.Time
}

// Again returns a channel that fires when the last pass is to be repeated; nil
// if it succeeded.
func (l *Loop) Again() <-chan time.Time { return l.again }

// Pass runs one pass, rests, and arranges for its repetition if it failed. Its
// own error is that of ctx.
func (l *Loop) Pass(ctx context.Context, pass func(context.Context) error) error {
	started := time.Now()
	l.again = nil
	if err := pass(ctx); err != nil {
		l.again = time.After(l.Retry.Next())
	} else {
		l.Retry.Reset()
	}
	return Wait(ctx, min(restFactor*time.Since(started), maxRest))
}
