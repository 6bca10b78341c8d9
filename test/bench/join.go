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
	rows, err := c.joins(ctx, b.roundsOr(5))
	if err != nil {
		return nil, err
	}
	rows.ratio.Limit = atMost(2)
	rows.join.took.Limit, rows.join.took.Flannel = atMost(0.3), "3.3 s"
	rows.join.memory.Limit, rows.join.memory.Flannel = atMost(40), "52 MB"
	rows.join.log.Limit, rows.join.log.Flannel = atMost(20), "4.9 MB"
	return rows.all(), nil
}

// joins makes the host join the network a few times, beside the bare loop.
func (c *crowd) joins(ctx context.Context, rounds int) (*besideRows, error) {
	peers := fmt.Sprint(c.peers)
	r := &besideRows{
		join: joinRows{
			took:   row{Measure: "join of " + peers + " peers, start to last entry", Unit: seconds, Mark: &mark{"joining", "this daemon", peers}},
			memory: row{Measure: "  peak memory", Unit: megabytes, Mark: &mark{"memory", "this daemon", peers}},
			cpu:    row{Measure: "  CPU time of the daemon", Unit: seconds},
			log:    row{Measure: "  log", Unit: kilobytes},
		},
		ratio: row{Measure: "  beside a bare loop of the same calls", Unit: times},
		bare:  row{Measure: "  the bare loop itself", Unit: seconds, Mark: &mark{"joining", "bare loop", peers}},
	}
	for range rounds {
		if err := c.leave(ctx); err != nil {
			return nil, err
		}
		loop, err := bareLoop(c.peers)
		if err != nil {
			return nil, err
		}
		join, err := r.join.round(ctx, c)
		if err != nil {
			return nil, err
		}
		r.bare.Samples = append(r.bare.Samples, inSeconds(loop))
		r.ratio.Samples = append(r.ratio.Samples, join.Seconds()/loop.Seconds())
	}
	return r, nil
}

// besideRows are a join and the bare loop.
type besideRows struct {
	join        joinRows
	ratio, bare row
}

func (r *besideRows) all() []row {
	return []row{r.join.took, r.ratio, r.bare, r.join.cpu, r.join.memory, r.join.log}
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
