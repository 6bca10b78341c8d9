package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"flannel/internal/loop"
	"flannel/lab"
)

// cluster is three hosts with a pod each.
type cluster struct {
	lab *lab.Lab
	// healthy is the state of the hosts when all is well.
	healthy []string
	// ending are the pings of past rounds that still wait for replies.
	ending sync.WaitGroup
}

// between is the rest between two faults, so that none meets what the last one
// has left the daemons busy with.
const between = 200 * time.Millisecond

// heal measures how long the overlay of three hosts needs after each fault
// until the kernel's state is what it was and all pods reach each other.
func (b *bench) heal(ctx context.Context) ([]row, error) {
	// The large network would compete for the two cores.
	if err := b.close(); err != nil {
		return nil, err
	}
	l, err := lab.New(ctx, lab.Options{Hosts: 3, Families: lab.Dual, Binaries: b.binaries})
	if err != nil {
		return nil, err
	}
	c := &cluster{lab: l}
	rows, err := c.heal(ctx, b.roundsOr(5))
	c.ending.Wait()
	return rows, errors.Join(err, l.Close())
}

func (c *cluster) heal(ctx context.Context, rounds int) ([]row, error) {
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	var rows []row
	for _, f := range faults() {
		r := row{Measure: "healed: " + f.name, Unit: seconds, Limit: atMost(2), Flannel: f.flannel}
		silence := row{Measure: "  longest silence", Unit: milliseconds, Mark: &mark{"silence", "silence", f.name}}
		for round := range rounds {
			took, silent, err := c.round(ctx, f, round)
			if err != nil {
				return append(rows, r), fmt.Errorf("%s: %w", f.name, err)
			}
			r.Samples = append(r.Samples, inSeconds(took))
			silence.Samples = append(silence.Samples, inMilliseconds(silent))
		}
		rows = append(rows, r, silence)
	}
	return rows, nil
}

// start brings the hosts up and remembers how they look.
func (c *cluster) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := c.lab.Up(ctx); err != nil {
		return err
	}
	if err := c.lab.WaitConnected(ctx); err != nil {
		return err
	}
	var err error
	c.healthy, err = c.states()
	return err
}

// round makes a fault and returns how long it lasted, and the longest time in
// which the host's pod heard nothing from another one that it kept asking.
func (c *cluster) round(ctx context.Context, f fault, round int) (took, silent time.Duration, err error) {
	if err := loop.Wait(ctx, between); err != nil {
		return 0, 0, err
	}
	scene := scene{host: c.lab.Hosts[0], peer: c.lab.Hosts[1], round: round}
	if f.prepare != nil {
		if err := f.prepare(ctx, scene); err != nil {
			return 0, 0, err
		}
	}
	pings, err := c.startPings()
	defer c.stop(pings)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := f.do(ctx, scene); err != nil {
		return 0, 0, err
	}
	want := c.healthy
	if f.changes != nil {
		want = replaceAll(want, f.changes(scene))
	}
	if err := c.healed(ctx, want); err != nil {
		return 0, 0, err
	}
	took = time.Since(start)
	c.healthy = want
	silent, err = longestSilence(ctx, pings)
	return took, silent, err
}

// healed waits until the hosts look as wanted and all pods reach each other.
func (c *cluster) healed(ctx context.Context, want []string) error {
	var last string
	err := until(ctx, "the former state", 2*time.Millisecond, func() (bool, error) {
		have, err := c.states()
		if err != nil {
			return false, err
		}
		for i := range want {
			if have[i] != want[i] {
				last = fmt.Sprintf("%s has\n%swant\n%s", c.lab.Hosts[i].Name, have[i], want[i])
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, last)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.lab.WaitConnected(ctx)
}

func (c *cluster) states() ([]string, error) {
	out := make([]string, len(c.lab.Hosts))
	for i, h := range c.lab.Hosts {
		var err error
		if out[i], err = overlayState(h.Handle); err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return out, nil
}

// replaceAll replaces old by new in all texts, and sorts their lines again.
func replaceAll(texts []string, oldnew []string) []string {
	out := make([]string, len(texts))
	for i, text := range texts {
		out[i] = sortLines(strings.NewReplacer(oldnew...).Replace(text))
	}
	return out
}
