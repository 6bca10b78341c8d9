package kube

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAServerThatIsAwayIsAskedRarely has many requests meet a server that does
// not answer for ten minutes.
func TestAServerThatIsAwayIsAskedRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const outage = 10 * time.Minute
		began := time.Now()
		var probes, requests, shut, opened atomic.Int64
		away := func(asked *atomic.Int64) func(context.Context) error {
			return func(context.Context) error {
				asked.Add(1)
				if time.Since(began) < outage {
					return errors.New("connection refused")
				}
				return nil
			}
		}
		g := newGate(away(&probes), func(error) { shut.Add(1) }, func() { opened.Add(1) })
		done := make(chan error)
		for range 20 {
			go func() { done <- g.do(t.Context(), away(&requests)) }()
		}
		for range 20 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if late := time.Since(began) - outage; late > 2*time.Minute {
			t.Errorf("the last request went on %v after the server", late)
		}
		// Once a request each before anybody knew, and once after.
		if p, r := probes.Load(), requests.Load(); p < 20 || p > 60 || r > 40 {
			t.Errorf("%d probes and %d requests in %v", p, r, outage)
		}
		if shut.Load() == 0 || opened.Load() != 1 {
			t.Errorf("shut %d times, opened %d times", shut.Load(), opened.Load())
		}
	})
}

// TestAServerWhoseStoreIsAway answers the probe, and for ten minutes no request:
// that is one outage.
func TestAServerWhoseStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const outage = 10 * time.Minute
		began := time.Now()
		var opened []time.Duration
		g := newGate(func(context.Context) error { return nil }, func(error) {}, func() { opened = append(opened, time.Since(began)) })
		err := g.do(t.Context(), func(context.Context) error {
			if time.Since(began) < outage {
				return errors.New("etcdserver: request timed out")
			}
			return nil
		})
		if err != nil || len(opened) != 1 || opened[0] < outage {
			t.Errorf("said to be over at %v, %v", opened, err)
		}
	})
}

func TestAGateEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		never := func(context.Context) error { return errors.New("connection refused") }
		g := newGate(never, func(error) {}, func() {})
		if err := g.do(ctx, never); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}
