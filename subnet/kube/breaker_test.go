package kube

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAServerThatIsAwayIsAskedRarely makes many requests to a server that does not
// answer for ten minutes.
func TestAServerThatIsAwayIsAskedRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const outage = 10 * time.Minute
		began := time.Now()
		var probes, requests, down, up atomic.Int64
		away := func(asked *atomic.Int64) func(context.Context) error {
			return func(context.Context) error {
				asked.Add(1)
				if time.Since(began) < outage {
					return errors.New("connection refused")
				}
				return nil
			}
		}
		b := newAPIBreaker(away(&probes), func(error) { down.Add(1) }, func() { up.Add(1) })
		done := make(chan error)
		for range 20 {
			go func() { done <- b.do(t.Context(), away(&requests)) }()
		}
		for range 20 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if late := time.Since(began) - outage; late > 2*time.Minute {
			t.Errorf("the last request went on %v after the server", late)
		}
		// Each request is made once before the outage is known, and once after it.
		if p, r := probes.Load(), requests.Load(); p < 20 || p > 60 || r > 40 {
			t.Errorf("%d probes and %d requests in %v", p, r, outage)
		}
		if down.Load() == 0 || up.Load() != 1 {
			t.Errorf("down %d times, up %d times", down.Load(), up.Load())
		}
	})
}

// TestAServerWhoseStoreIsAway has a server that answers the probe, and for ten
// minutes no request: that is one outage.
func TestAServerWhoseStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const outage = 10 * time.Minute
		began := time.Now()
		var up []time.Duration
		b := newAPIBreaker(func(context.Context) error { return nil }, func(error) {}, func() { up = append(up, time.Since(began)) })
		err := b.do(t.Context(), func(context.Context) error {
			if time.Since(began) < outage {
				return errors.New("etcdserver: request timed out")
			}
			return nil
		})
		if err != nil || len(up) != 1 || up[0] < outage {
			t.Errorf("reported as over at %v, %v", up, err)
		}
	})
}

func TestWaitingForTheServerEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		never := func(context.Context) error { return errors.New("connection refused") }
		b := newAPIBreaker(never, func(error) {}, func() {})
		if err := b.do(ctx, never); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}
