package main

import (
	"context"
	"fmt"
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
	took := row{Measure: title + ", start to last entry", Unit: seconds, Limit: atMost(0.8), Flannel: "3.3 s"}
	ratio := row{Measure: "  beside a bare loop of the same calls", Unit: times, Limit: atMost(2)}
	bare := row{Measure: "  the bare loop itself", Unit: seconds}
	memory := row{Measure: "  peak memory", Unit: megabytes, Limit: atMost(40), Flannel: "52 MB"}
	cpu := row{Measure: "  CPU time of the daemon", Unit: seconds}
	log := row{Measure: "  log", Unit: kilobytes, Limit: atMost(20), Flannel: "4.9 MB"}
	for range b.roundsOr(5) {
		if err := c.leave(ctx); err != nil {
			return nil, err
		}
		loop, err := bareLoop(b.peers)
		if err != nil {
			return nil, err
		}
		logged := len(c.host.Log())
		join, err := c.join(ctx)
		if err != nil {
			return nil, err
		}
		peak, err := c.daemon().peakMemory()
		if err != nil {
			return nil, err
		}
		used, err := c.daemon().cpu()
		if err != nil {
			return nil, err
		}
		took.Samples = append(took.Samples, inSeconds(join))
		bare.Samples = append(bare.Samples, inSeconds(loop))
		ratio.Samples = append(ratio.Samples, join.Seconds()/loop.Seconds())
		memory.Samples = append(memory.Samples, float64(peak)/1e6)
		cpu.Samples = append(cpu.Samples, inSeconds(used))
		log.Samples = append(log.Samples, float64(len(c.host.Log())-logged)/1e3)
	}
	return []row{took, ratio, bare, cpu, memory, log}, nil
}
