package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// probe measures what probing adds to a daemon that has nothing else to do, in
// a network of which no peer answers: then the daemon has the most to find out.
func (b *bench) probe(ctx context.Context) ([]row, error) {
	c, err := b.getCrowd(ctx)
	if err != nil {
		return nil, err
	}
	flags := c.host.Flags
	defer func() { c.host.Flags = flags }()
	load := row{Measure: fmt.Sprintf("probing %d peers, of one core", c.peers), Unit: percent, Limit: atMost(0.2)}
	memory := row{Measure: "  peak memory of that", Unit: megabytes, Limit: atMost(2)}
	// A difference may be less than chance; these tell of what it is one.
	off, on := row{Measure: "  with --probe=false", Unit: percent}, row{Measure: "  with --probe", Unit: percent}
	for range b.roundsOr(4) {
		without, err := c.probed(ctx, append(slices.Clone(flags), "--probe=false"))
		if err != nil {
			return nil, err
		}
		with, err := c.probed(ctx, flags)
		if err != nil {
			return nil, err
		}
		load.Samples = append(load.Samples, with.load-without.load)
		memory.Samples = append(memory.Samples, with.peak-without.peak)
		off.Samples, on.Samples = append(off.Samples, without.load), append(on.Samples, with.load)
	}
	return []row{load, memory, off, on}, nil
}

// demand is what a daemon uses: a part of one core in percent, and megabytes.
type demand struct{ load, peak float64 }

// probed joins the network with these flags and returns what the daemon uses
// then.
func (c *crowd) probed(ctx context.Context, flags []string) (u demand, err error) {
	if err := c.leave(ctx); err != nil {
		return u, err
	}
	c.host.Flags = flags
	if _, err := c.join(ctx); err != nil {
		return u, err
	}
	if err := c.settle(ctx); err != nil {
		return u, err
	}
	for u.load, err = c.idleLoad(ctx); errors.Is(err, errPassed); {
		u.load, err = c.idleLoad(ctx)
	}
	if err != nil {
		return u, err
	}
	peak, err := c.daemon().peakMemory()
	u.peak = float64(peak) / 1e6
	return u, err
}
