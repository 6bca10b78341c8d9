package kube

import (
	"testing"
	"time"
)

func TestAFightIsSaidOnceAndSlowedDown(t *testing.T) {
	var f fight
	now := time.Unix(1700000000, 0)
	started, said, writes := now, 0, 0
	// Somebody else changes the annotations as soon as they are written.
	for now.Sub(started) < 10*time.Minute {
		pause, tell := f.round(now)
		if tell {
			said++
		}
		if pause == 0 {
			writes++
			now = now.Add(time.Millisecond)
			continue
		}
		now = now.Add(pause)
	}
	if said != 1 || writes < 10 || writes > 20 {
		t.Errorf("said %d times, %d writes in ten minutes", said, writes)
	}
	now = now.Add(peaceAfter + time.Minute)
	if pause, tell := f.round(now); pause != 0 || tell {
		t.Errorf("after peace: %v, %t", pause, tell)
	}
}

func TestRetriesGrowAndAreSpread(t *testing.T) {
	for range 100 {
		r := newRetry()
		first := r.next()
		if first < time.Second || first > 2*time.Second {
			t.Fatalf("the first wait is %v", first)
		}
		var last time.Duration
		for range 10 {
			last = r.next()
		}
		if last < 15*time.Second || last > 30*time.Second {
			t.Fatalf("the last wait is %v", last)
		}
	}
}
