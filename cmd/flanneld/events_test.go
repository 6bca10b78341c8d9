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

// stuck is a log that does not take a line before it is closed.
type stuck chan struct{}

func (s stuck) Write(p []byte) (int, error) {
	<-s
	return len(p), nil
}

// TestASenderOfEventsThatHangs shows in /healthz, and one that waits for the API does
// not.
func TestASenderOfEventsThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changed := loop.NewSignal()
		registry := health.New(changed.Send)
		note := registry.Note("forwarding", "ForwardingBlocked")
		log, answer := make(stuck), make(chan struct{})
		e := &events{
			log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), health: registry, changed: changed,
			post: func(context.Context, string, string) error {
				<-answer
				return errors.New("refused")
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.run(ctx) }()
		hanging := func(when string, want int) {
			t.Helper()
			time.Sleep(time.Hour)
			if got := registry.Hanging(); len(got) != want {
				t.Errorf("%s: got %q, want %d loops", when, got, want)
			}
		}
		hanging("at rest", 0)
		note.Fail("drops")
		hanging("while the API does not answer", 0)
		close(answer)
		hanging("while the log takes nothing", 1)
		close(log)
		hanging("later", 0)
		cancel()
		<-done
	})
}
