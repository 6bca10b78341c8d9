package main

import (
	"context"
	"fmt"
	"time"
)

// join measures a node that joins the large network: from the start of the
// program to the last entry in the kernel, beside a bare loop of the same
// calls; its peak memory; its log.
func (b *bench) join(ctx context.Context) ([]row, error) {
	c, err := b.getCrowd(ctx)
	if err != nil {
		return nil, err
	}
	title := fmt.Sprintf("join of %d peers", b.peers)
	r := joinRows{
		took:   row{Measure: title + ", start to last entry", Unit: seconds, Limit: atMost(0.8), Flannel: "3.3 s"},
		memory: row{Measure: "  peak memory", Unit: megabytes, Limit: atMost(40), Flannel: "52 MB"},
		cpu:    row{Measure: "  CPU time of the daemon", Unit: seconds},
		log:    row{Measure: "  log", Unit: kilobytes, Limit: atMost(20), Flannel: "4.9 MB"},
	}
	ratio := row{Measure: "  beside a bare loop of the same calls", Unit: times, Limit: atMost(2)}
	bare := row{Measure: "  the bare loop itself", Unit: seconds}
	for range b.roundsOr(5) {
		if err := c.leave(ctx); err != nil {
			return nil, err
		}
		loop, err := bareLoop(b.peers)
		if err != nil {
			return nil, err
		}
		join, err := r.round(ctx, c)
		if err != nil {
			return nil, err
		}
		bare.Samples = append(bare.Samples, inSeconds(loop))
		ratio.Samples = append(ratio.Samples, join.Seconds()/loop.Seconds())
	}
	return []row{r.took, ratio, bare, r.cpu, r.memory, r.log}, nil
}

// joinRows are what every join is measured by.
type joinRows struct{ took, memory, cpu, log row }

// round makes the host join and returns how long that took.
func (r *joinRows) round(ctx context.Context, c *crowd) (time.Duration, error) {
	logged := len(c.host.Log())
	took, err := c.join(ctx)
	if err != nil {
		return 0, err
	}
	peak, err := c.daemon().peakMemory()
	if err != nil {
		return 0, err
	}
	used, err := c.daemon().cpu()
	if err != nil {
		return 0, err
	}
	r.took.Samples = append(r.took.Samples, inSeconds(took))
	r.memory.Samples = append(r.memory.Samples, float64(peak)/1e6)
	r.cpu.Samples = append(r.cpu.Samples, inSeconds(used))
	r.log.Samples = append(r.log.Samples, float64(len(c.host.Log())-logged)/1e3)
	return took, nil
}
