// Package wait blocks for a while.
package wait

import (
	"context"
	"time"
)

// For blocks for d, or until ctx ends: then it returns the error of ctx.
func For(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
