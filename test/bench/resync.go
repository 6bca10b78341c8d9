package main

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/loop"
	"flannel/kernel"
)

// quiet is how long a daemon gets to finish what it was made to do.
const quiet = 700 * time.Millisecond

// resync measures a pass that compares the kernel's tables with what is
// wanted and finds nothing: the time by the daemon's own clock, what it wrote,
// and the CPU time, which also holds what the daemon does around the pass.
func (b *bench) resync(ctx context.Context) ([]row, error) {
	c, err := b.getJoined(ctx)
	if err != nil {
		return nil, err
	}
	took := row{Measure: fmt.Sprintf("resync of %d unchanged peers", b.peers), Unit: milliseconds, Limit: atMost(60)}
	writes := row{Measure: "  writes", Unit: count, Limit: atMost(0)}
	cpu := row{Measure: "  CPU time", Unit: milliseconds}
	for range b.roundsOr(10) {
		r, err := c.provokeResync(ctx)
		if err != nil {
			return nil, err
		}
		took.Samples = append(took.Samples, inMilliseconds(r.took))
		writes.Samples = append(writes.Samples, r.writes)
		cpu.Samples = append(cpu.Samples, inMilliseconds(r.cpu))
	}
	memory := row{Measure: "peak memory after all this", Unit: megabytes, Limit: atMost(40), Flannel: "52 MB"}
	peak, err := c.daemon().peakMemory()
	if err != nil {
		return nil, err
	}
	memory.Samples = []float64{float64(peak) / 1e6}
	return []row{took, writes, cpu, memory}, nil
}

// resynced is what one resync cost.
type resynced struct {
	took   time.Duration
	writes float64
	cpu    time.Duration
}

// provokeResync makes the daemon compare everything although all is as it
// should be: while the daemon stands still a route is deleted and put back, and
// only the events tell of it.
func (c *crowd) provokeResync(ctx context.Context) (resynced, error) {
	before, err := c.metrics(ctx)
	if err != nil {
		return resynced{}, err
	}
	started, err := c.daemon().cpu()
	if err != nil {
		return resynced{}, err
	}
	if err := c.whileStopped(c.deleteAndRestoreRoute); err != nil {
		return resynced{}, err
	}
	after, err := c.metricsAfterPass(ctx, before[passCount])
	if err != nil {
		return resynced{}, err
	}
	ended, err := c.daemon().cpu()
	if err != nil {
		return resynced{}, err
	}
	passes := after[passCount] - before[passCount]
	return resynced{
		took:   time.Duration((after[passSum] - before[passSum]) / passes * float64(time.Second)),
		writes: after.total(changes) - before.total(changes),
		cpu:    time.Duration(float64(ended-started) / passes),
	}, nil
}

// metricsAfterPass reads the metrics once the daemon has had time to finish and
// has made more passes than before.
func (c *crowd) metricsAfterPass(ctx context.Context, before float64) (numbers, error) {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err := loop.Wait(ctx, quiet); err != nil {
			return nil, err
		}
		m, err := c.metrics(ctx)
		if err != nil || m[passCount] > before {
			return m, err
		}
	}
	return nil, fmt.Errorf("no pass within %s", patience)
}

// whileStopped does something that the daemon sees only afterwards.
func (c *crowd) whileStopped(do func() error) error {
	pid := int(c.daemon())
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return fmt.Errorf("stop the daemon: %w", err)
	}
	err := do()
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		return fmt.Errorf("let the daemon go on: %w", err)
	}
	return err
}

func (c *crowd) deleteAndRestoreRoute() error {
	link, err := c.host.Interface(device)
	if err != nil {
		return err
	}
	routes, err := c.host.Handle.RouteListFiltered(unix.AF_INET,
		&netlink.Route{LinkIndex: link.Attrs().Index, Protocol: kernel.RouteProtocol},
		netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	if err != nil || len(routes) == 0 {
		return fmt.Errorf("find one of %d routes: %w", len(routes), err)
	}
	route := &routes[len(routes)/2]
	if err := c.host.Handle.RouteDel(route); err != nil {
		return fmt.Errorf("delete a route: %w", err)
	}
	if err := c.host.Handle.RouteAdd(route); err != nil {
		return fmt.Errorf("restore a route: %w", err)
	}
	return nil
}
