package loop

import (
	"testing"
	"time"
)

func TestRestorationsSlowDown(t *testing.T) {
	const limit = 5 * time.Second
	var c Contention
	now := time.Unix(1000, 0)
	if c.Next().After(now) || c.Active() {
		t.Error("the first restoration waits")
	}
	for i, want := range []time.Duration{0, 0, 1, 2, 4, 8, 16, 32, 60, 60} {
		if begins := c.Restored(now); begins != (i == 2) || c.Active() != (i >= 2) {
			t.Errorf("restoration %d: begins %t, active %t", i, begins, c.Active())
		}
		if wait := c.Next().Sub(now); wait != want*time.Second {
			t.Errorf("after restoration %d: wait %s, want %s", i, wait, want*time.Second)
		}
		if wait := c.NextUrgent(limit).Sub(now); wait != min(want*time.Second, limit) {
			t.Errorf("after restoration %d: wait %s for an urgent one", i, wait)
		}
		now = now.Add(want * time.Second)
	}
	c.SkipDelay()
	if c.Next().After(now) || c.NextUrgent(limit).After(now) {
		t.Error("a skipped delay is waited for")
	}
	now = c.QuietAt()
	if c.Restored(now); c.Active() || c.Next().After(now) {
		t.Error("a change after a long silence is not answered at once")
	}
	if c.Reset() {
		t.Error("one change is contention")
	}
}

func TestTheNextRestorationIsDeferred(t *testing.T) {
	var c Contention
	now := time.Unix(1000, 0)
	for i, want := range []time.Duration{3, 3, 3, 3, 3, 4, 8} {
		c.Defer(now.Add(3 * time.Second))
		c.Defer(now.Add(4 * time.Second))
		if wait := c.Next().Sub(now); wait != want*time.Second {
			t.Errorf("restoration %d: wait %s, want %s", i, wait, want*time.Second)
		}
		if c.NextUrgent(0).After(now) {
			t.Errorf("restoration %d: an urgent one is deferred", i)
		}
		now = c.Next()
		c.Restored(now)
	}
	c.Defer(now.Add(time.Hour))
	if c.SkipDelay(); c.Next().After(now) {
		t.Error("a skipped delay is waited for")
	}
}

func TestALongContentionCostsFewWrites(t *testing.T) {
	c := Contention{Gap: time.Second, Quiet: 5 * time.Minute}
	start := time.Unix(1700000000, 0)
	now, begun, writes := start, 0, 0
	// Somebody else changes the record as soon as it is restored.
	for now.Sub(start) < 10*time.Minute {
		if c.Restored(now) {
			begun++
		}
		writes++
		wait := c.Next().Sub(now)
		if wait < c.Gap {
			t.Fatalf("%s between two restorations", wait)
		}
		now = now.Add(wait)
	}
	if begun != 1 || writes < 10 || writes > 20 {
		t.Errorf("begun %d times, %d writes in ten minutes", begun, writes)
	}
	if quiet := c.QuietAt().Sub(now); quiet <= 3*time.Minute {
		t.Errorf("over after %s", quiet)
	}
}
