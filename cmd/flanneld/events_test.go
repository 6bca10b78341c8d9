package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flannel/internal/health"
	"flannel/internal/loop"
)

func TestNotesArePostedAsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changed := loop.NewSignal()
		registry := health.New(changed.Send)
		forward := registry.Note("forwarding", "ForwardingBlocked")
		settings := registry.Note("settings", "HostSettings")
		silent := registry.Note("peers", "")
		var mu sync.Mutex
		var got []string
		var refused error
		e := &events{
			log: slog.New(slog.DiscardHandler), health: registry, changed: changed,
			post: func(_ context.Context, reason, message string) error {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, reason+": "+message)
				return refused
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.run(ctx) }()
		posts := func(after time.Duration, want ...string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			got = nil
		}

		silent.Fail("3 left out")
		posts(time.Hour)

		forward.Fail("drops")
		posts(0, "ForwardingBlocked: drops")
		settings.Fail("off") // others do not wait
		posts(0, "HostSettings: off")
		posts(time.Hour)

		for range 5 { // a check that comes and goes
			forward.OK()
			synctest.Wait()
			forward.Fail("drops")
			synctest.Wait()
		}
		forward.Fail("drops more")
		posts(0, "ForwardingBlocked: drops")
		posts(eventEvery - time.Second)
		posts(time.Second, "ForwardingBlocked: drops more")

		mu.Lock()
		refused = errors.New("forbidden")
		mu.Unlock()
		settings.Fail("still off")
		posts(time.Hour, "HostSettings: still off")

		cancel()
		<-done
	})
}
