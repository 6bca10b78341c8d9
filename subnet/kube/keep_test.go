package kube

import (
	"testing"
	"time"
)

func TestRetriesGrowAndAreSpread(t *testing.T) {
	for range 100 {
		b := newBackoff()
		first := b.Next()
		if first < time.Second || first > 2*time.Second {
			t.Fatalf("the first wait is %v", first)
		}
		var last time.Duration
		for range 10 {
			last = b.Next()
		}
		if last < 15*time.Second || last > 30*time.Second {
			t.Fatalf("the last wait is %v", last)
		}
	}
}
