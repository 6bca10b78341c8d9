package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flannel/internal/loop"
	"flannel/network"
)

const (
	idleWindow    = 5 * time.Second
	foreignWindow = 2500 * time.Millisecond
)

// idle measures the CPU time of a daemon that has nothing to do but to probe, as by
// default; probe measures the share of that. A resync is seldom in a window and would
// then fill it; its share is added instead.
func (b *bench) idle(ctx context.Context) ([]row, error) {
	c, err := b.getJoined(ctx)
	if err != nil {
		return nil, err
	}
	resync, err := c.provokeResync(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.settle(ctx); err != nil {
		return nil, err
	}
	share := 100 * resync.cpu.Seconds() / network.ResyncPeriod.Seconds()
	whole := row{Measure: fmt.Sprintf("idle with %d peers, with probing, of one core", b.peers), Unit: percent, Limit: atMost(0.1), Flannel: "0.55 %"}
	without := row{Measure: fmt.Sprintf("  without the resync each %s", network.ResyncPeriod), Unit: percent}
	for range b.roundsOr(4) {
		used, err := c.idleLoad(ctx)
		if errors.Is(err, errPassed) {
			used, err = c.idleLoad(ctx)
		}
		if err != nil {
			return nil, err
		}
		whole.Samples = append(whole.Samples, used+share)
		without.Samples = append(without.Samples, used)
	}
	return []row{whole, without}, nil
}

func (c *crowd) idleLoad(ctx context.Context) (float64, error) {
	return c.load(ctx, idleWindow, func(ctx context.Context) error { return loop.Wait(ctx, idleWindow) })
}

// settle waits until the daemon has made no pass for a while, which is longer
// than the time after which a daemon that starts first looks at its subnet file
// again.
func (c *crowd) settle(ctx context.Context) error {
	const rest = 3 * time.Second
	before := -1.0
	return until(ctx, "the daemon at rest", rest, func() (bool, error) {
		m, err := c.metrics(ctx)
		if err != nil {
			return false, err
		}
		same := m[passCount] == before
		before = m[passCount]
		return same, nil
	})
}

// errPassed means that the daemon made a pass although nothing happened.
var errPassed = errors.New("the daemon made a pass meanwhile")

// load returns which part of one core, in percent, the daemon uses while
// something happens that takes this long.
func (c *crowd) load(ctx context.Context, window time.Duration, happen func(context.Context) error) (float64, error) {
	before, err := c.metrics(ctx)
	if err != nil {
		return 0, err
	}
	// The answer itself costs something.
	if err := loop.Wait(ctx, 100*time.Millisecond); err != nil {
		return 0, err
	}
	began := time.Now()
	started, err := c.daemon().cpu()
	if err != nil {
		return 0, err
	}
	if err := happen(ctx); err != nil {
		return 0, err
	}
	ended, err := c.daemon().cpu()
	if err != nil {
		return 0, err
	}
	took := time.Since(began)
	if took < window {
		return 0, fmt.Errorf("%s of load instead of %s", took, window)
	}
	after, err := c.metrics(ctx)
	if err != nil {
		return 0, err
	}
	used := 100 * (ended - started).Seconds() / took.Seconds()
	if after[passCount] != before[passCount] {
		return used, errPassed
	}
	return used, nil
}
