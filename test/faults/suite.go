package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/internal/ipfam"
	"flannel/internal/loop"
	"flannel/lab"
	"flannel/subnet/env"
)

// suite is one run.
type suite struct {
	settings
	lab *lab.Lab
	// foreign, rules and env are what each host must always have.
	foreign, rules, env []string
	// snapshot is a file with the store as it was at the start.
	snapshot string
	// markers counts the markers.
	markers int
	// usage is what each daemon used after the first rounds; nil before.
	usage []usage
}

func pause(ctx context.Context, d time.Duration) error { return loop.Wait(ctx, d) }

func (s *suite) run(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	done, end := 0, time.Now().Add(s.duration)
	for round, faults := range s.draw() {
		if s.rounds > 0 && done == s.rounds || s.rounds == 0 && time.Now().After(end) {
			break
		}
		before := s.logs()
		took, lost, err := s.round(ctx, faults)
		if done++; err == nil && done == settled {
			err = s.measure(ctx)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("round %d, %s:\n%w\n%s\nto repeat this round: %s\nand all before it: %s", round+1, names(faults), err,
				s.since(before), s.command(round+1, 1, -1), s.command(s.first, done, s.long))
		}
		fmt.Printf("%4d  %-6s %-6s %s\n", round+1, took.Round(100*time.Millisecond), time.Duration(lost)*interval, names(faults))
	}
	return nil
}

// command is what repeats so many rounds from the first.
func (s *settings) command(first, rounds, long int) string {
	args := fmt.Sprintf("-backend %s -store %s -hosts %d -first %d -rounds %d", s.backend, s.store, s.hosts, first, rounds)
	if long >= 0 {
		args += fmt.Sprint(" -long ", long)
	}
	if s.only.String() != "" {
		args += " -only " + quoted(s.only.String())
	}
	if s.flanneld != "" {
		args += " -flanneld " + quoted(s.flanneld)
	}
	return fmt.Sprintf("make faults SEED=%d ARGS='%s'", s.seed, args)
}

// quoted is a word for the shell that make runs, within an argument of make in
// single quotes.
func quoted(word string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$$`, `'`, `'\''`).Replace(word) + `"`
}

func names(faults []drawn) string {
	var out []string
	for _, d := range faults {
		text := fmt.Sprintf("%s on host%d", d.name, d.victim+1)
		if d.longest > 0 {
			text += " for " + d.lasts.Round(time.Millisecond).String()
		}
		out = append(out, text)
	}
	return strings.Join(out, "; and ")
}

func (s *suite) start(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, h := range s.lab.Hosts {
		if _, err := h.Exec(limited, "sh", "-c", plant); err != nil {
			return err
		}
	}
	if err := s.lab.Up(limited); err != nil {
		return err
	}
	if err := s.lab.WaitConnected(limited); err != nil {
		return err
	}
	if err := s.putMarker(limited); err != nil {
		return err
	}
	for _, h := range s.lab.Hosts {
		foreign, err := h.Exec(limited, "sh", "-c", show)
		if err != nil {
			return err
		}
		rules, err := h.Exec(limited, "sh", "-c", rules)
		if err != nil {
			return err
		}
		env, err := h.ReadFile(lab.DefaultSubnetFile)
		if err != nil {
			return err
		}
		s.foreign, s.rules = append(s.foreign, foreign), append(s.rules, rules)
		s.env = append(s.env, string(env))
	}
	if err := s.converge(limited, 30*time.Second, nil); err != nil {
		return err
	}
	return s.lab.Etcd.Snapshot(limited, s.snapshot)
}

// subnetsAtStart are those that the pods of a host, counted from 0, have
// addresses of.
func (s *suite) subnetsAtStart(host int) (ipfam.Pair[netip.Prefix], error) {
	e, err := env.Parse(lab.DefaultSubnetFile, s.env[host])
	return e.Masked(), err
}

// subnetsOfBoth are those of the host that is drawn as the victim and of its peer.
func (s scene) subnetsOfBoth() (own, peer ipfam.Pair[netip.Prefix], err error) {
	own, err = s.subnetsAtStart(s.drawn.victim)
	if err == nil {
		peer, err = s.subnetsAtStart(s.drawn.peer)
	}
	return own, peer, err
}

// round makes faults. It returns how long the cluster needed to recover after
// they were undone, and how many pings the series lost that lost most.
func (s *suite) round(ctx context.Context, faults []drawn) (took time.Duration, lost int, err error) {
	pings, err := s.startPings()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	slow := busy()
	group, inner := errgroup.WithContext(ctx)
	limit := deadline
	stood := make([]time.Duration, len(faults))
	for i, d := range faults {
		limit = max(limit, d.deadline())
		group.Go(func() (err error) {
			stood[i], err = s.hurt(inner, d)
			return err
		})
	}
	err = group.Wait()
	undone := time.Now()
	if err == nil {
		err = s.putMarker(ctx)
	}
	if err == nil {
		err = s.converge(ctx, scaled(limit, max(slow, busy())), nil)
	}
	took = time.Since(undone)
	lost, tooMany := s.stopPings(pings, faults, stood, time.Since(began), max(slow, busy()))
	if err == nil {
		err = s.examine(ctx, faults, scaled(limit, max(slow, busy())))
	}
	return took, lost, errors.Join(err, tooMany, s.after(ctx))
}

// hurt makes one fault and undoes it, and returns how long that took.
func (s *suite) hurt(ctx context.Context, d drawn) (stood time.Duration, err error) {
	place := scene{suite: s, host: s.lab.Hosts[d.victim], peer: s.lab.Hosts[d.peer], drawn: d}
	if err := pause(ctx, d.offset); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := d.inject(ctx, place); err != nil {
		return 0, fmt.Errorf("make the fault %q: %w", d.name, err)
	}
	if err := s.stand(ctx, place); err != nil {
		return 0, fmt.Errorf("while the fault %q stands: %w", d.name, err)
	}
	if d.undo != nil {
		if err := d.undo(ctx, place); err != nil {
			return 0, fmt.Errorf("undo the fault %q: %w", d.name, err)
		}
	}
	return time.Since(began), nil
}

// stand waits as long as a fault stands. With a fault that has records, every
// host has the state that follows from those that may be used, soon and until
// the end.
func (s *suite) stand(ctx context.Context, place scene) error {
	d := place.drawn
	if d.uses == nil {
		return pause(ctx, d.lasts)
	}
	uses, err := d.uses(place)
	if err != nil {
		return err
	}
	// Who has the marker in the kernel has seen the records before it.
	if err := s.putMarker(ctx); err != nil {
		return err
	}
	if err := s.converge(ctx, scaled(deadline, busy()), uses); err != nil {
		return err
	}
	if err := pause(ctx, d.lasts); err != nil {
		return err
	}
	return s.wrong(ctx, uses)
}

// busy is the factor by which other programs slow this one down. Most of what
// has to happen in time is short, so it is far less than their number.
func busy() float64 { return 1 + lab.LoadAverage()/float64(4*runtime.NumCPU()) }

func scaled(d time.Duration, factor float64) time.Duration { return time.Duration(float64(d) * factor) }

// after checks what must be so after every round, and not only at last.
func (s *suite) after(ctx context.Context) error {
	errs := make([]error, len(s.lab.Hosts))
	var group errgroup.Group
	for i, h := range s.lab.Hosts {
		group.Go(func() error {
			have, err := h.Exec(ctx, "sh", "-c", show)
			if diff := orderedDifference(s.foreign[i], have); diff != "" || err != nil {
				err = errors.Join(err, fmt.Errorf("%s: what is not ours has changed:\n%s", h.Name, diff))
			}
			errs[i] = errors.Join(err, s.frugal(ctx, i))
			return nil
		})
	}
	return errors.Join(append(errs, group.Wait())...)
}
