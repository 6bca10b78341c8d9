package loop

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestSignalsBeforeAReceiveAreOne(t *testing.T) {
	s := NewSignal()
	received := func() bool {
		select {
		case <-s:
			return true
		default:
			return false
		}
	}
	if received() {
		t.Error("a signal that nobody has sent")
	}
	s.Send()
	s.Send()
	if !received() || received() {
		t.Error("two signals are not one")
	}
	s.Send()
	s.Clear()
	s.Clear()
	if received() {
		t.Error("a signal that was cleared")
	}
}

func TestDelaysDouble(t *testing.T) {
	for _, b := range []Backoff{{}, {First: 50 * time.Millisecond, Last: 5 * time.Second}, {First: 2 * time.Second, Jitter: 0.5}} {
		first, last, jitter := cmp.Or(b.First, time.Second), cmp.Or(b.Last, 30*time.Second), cmp.Or(b.Jitter, 0.2)
		for range 2 {
			want := first
			for range 10 {
				if got := b.Next(); got > want || got < want-time.Duration(jitter*float64(want))-1 {
					t.Errorf("%+v: got %v, want about %v", b, got, want)
				}
				want = min(2*want, last)
			}
			b.Reset()
		}
	}
}

func TestWaitEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := Wait(t.Context(), time.Minute); err != nil || time.Since(start) != time.Minute {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		if err := new(Backoff).Wait(t.Context()); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := new(Backoff).Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the error of the context", err)
		}
	})
}

func TestFailedPassesAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		wake := NewSignal()
		wake.Send()
		var l Loop
		var at []time.Duration
		start := time.Now()
		pass := func(context.Context) error {
			at = append(at, time.Since(start).Round(time.Second))
			switch len(at) {
			case 4:
				time.AfterFunc(time.Minute, cancel)
				return nil
			case 5:
				return errors.New("a pass that nobody asked for")
			}
			return errors.New("not yet")
		}
		l.Retry.Jitter = 1e-9
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-wake:
				_ = l.Pass(ctx, pass)
			case <-l.Again():
				_ = l.Pass(ctx, pass)
			}
		}
		if want := []time.Duration{0, 1 * time.Second, 3 * time.Second, 7 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("passes at %v, want %v", at, want)
		}
	})
}

func TestTheLoopRestsAfterAPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for took, want := range map[time.Duration]time.Duration{0: 0, 10 * time.Millisecond: 40 * time.Millisecond, time.Minute: time.Second} {
			start := time.Now()
			err := new(Loop).Pass(t.Context(), func(context.Context) error {
				time.Sleep(took)
				return nil
			})
			if rest := time.Since(start) - took; err != nil || rest != want {
				t.Errorf("rested %v after %v, want %v (%v)", rest, took, want, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		err := new(Loop).Pass(ctx, func(context.Context) error {
			time.Sleep(time.Second)
			cancel()
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the error of the context", err)
		}
	})
}
