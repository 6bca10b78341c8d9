// Package eventually has tests wait for conditions.
package eventually

import (
	"testing"
	"time"
)

// limit is how long a condition may take. What works is far quicker, also on
// a busy machine.
const limit = 40 * time.Second

// The condition is looked at often at first, then less and less.
const (
	firstInterval = 2 * time.Millisecond
	lastInterval  = 50 * time.Millisecond
)

// True waits until ok. what names the condition when it does not come.
func True(t testing.TB, what string, ok func() bool) {
	t.Helper()
	Says(t, func() (string, bool) { return what, ok() })
}

// Says waits until check is satisfied. Its text is what was seen instead
// when that does not come.
func Says(t testing.TB, check func() (string, bool)) {
	t.Helper()
	Within(t, limit, check)
}

// Within is Says for what takes longer.
func Within(t testing.TB, limit time.Duration, check func() (string, bool)) {
	t.Helper()
	interval := firstInterval
	for timeout := time.After(limit); ; {
		text, ok := check()
		if ok {
			return
		}
		select {
		case <-time.After(interval):
		case <-timeout:
			t.Fatalf("not within %v: %s", limit, text)
		}
		interval = min(interval*3/2, lastInterval)
	}
}
