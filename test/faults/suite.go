package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/internal/ipfam"
	"flannel/internal/loop"
	"flannel/lab"
	"flannel/lab/ping"
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
	// marker is the number of the last one.
	marker int
	// usage is what each daemon used at the start.
	usage []usage
}

// interval is how often the pods ping each other.
const interval = 50 * time.Millisecond

func pause(ctx context.Context, d time.Duration) error { return loop.Wait(ctx, d) }

func (s *suite) run(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	table, end := s.table(), time.Now().Add(s.duration)
	for round := s.first - 1; ; round++ {
		if done := round - s.first + 1; s.rounds > 0 && done == s.rounds || s.rounds == 0 && time.Now().After(end) {
			return nil
		}
		faults := draw(s.seed, round, table)
		before := s.logs()
		took, err := s.round(ctx, round, faults)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("seed %d, round %d (make faults SEED=%d ARGS='-backend %s -store %s -within %s -only \"%s\" -first %d'): %s:\n%w\n%s",
				s.seed, round+1, s.seed, s.backend, s.store, s.within, s.only, round+1, names(faults), err, s.since(before))
		}
		fmt.Printf("%4d  %-6s %s\n", round+1, took.Round(100*time.Millisecond), names(faults))
	}
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
	if err := s.putMarker(limited, s.first-2); err != nil {
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
		u, err := usageOf(limited, h.Flanneld())
		if err != nil {
			return err
		}
		s.foreign, s.rules = append(s.foreign, foreign), append(s.rules, rules)
		s.env, s.usage = append(s.env, string(env)), append(s.usage, u)
	}
	if err := s.converge(limited, 30*time.Second); err != nil {
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

// round makes faults and returns how long the cluster needed to recover after
// they were undone.
func (s *suite) round(ctx context.Context, round int, faults []drawn) (time.Duration, error) {
	pings, err := s.startPings()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	slow := busy()
	group, inner := errgroup.WithContext(ctx)
	limit := deadline
	for _, d := range faults {
		limit = max(limit, d.deadline)
		group.Go(func() error { return s.hurt(inner, d) })
	}
	err = group.Wait()
	undone := time.Now()
	if err == nil {
		err = s.putMarker(ctx, round)
	}
	if err == nil {
		err = s.converge(ctx, scaled(limit, max(slow, busy())))
	}
	took := time.Since(undone)
	return took, errors.Join(err, s.stopPings(pings, faults, time.Since(began), max(slow, busy())), s.after(ctx))
}

// hurt makes one fault and undoes it.
func (s *suite) hurt(ctx context.Context, d drawn) error {
	place := scene{suite: s, host: s.lab.Hosts[d.victim], peer: s.lab.Hosts[d.peer], drawn: d}
	if err := pause(ctx, d.offset); err != nil {
		return err
	}
	if err := d.inject(ctx, place); err != nil {
		return fmt.Errorf("make the fault %q: %w", d.name, err)
	}
	if err := pause(ctx, d.lasts); err != nil || d.undo == nil {
		return err
	}
	if err := d.undo(ctx, place); err != nil {
		return fmt.Errorf("undo the fault %q: %w", d.name, err)
	}
	return nil
}

// busy is the factor by which other programs slow this one down. Most of what
// has to happen in time is short, so it is far less than their number.
func busy() float64 { return 1 + lab.LoadAverage()/float64(4*runtime.NumCPU()) }

func scaled(d time.Duration, factor float64) time.Duration { return time.Duration(float64(d) * factor) }

// converge waits until every host is as it should be.
func (s *suite) converge(ctx context.Context, limit time.Duration) error {
	end := time.Now().Add(limit)
	for {
		wrong := s.wrong(ctx)
		if wrong == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("not as it should be after %s:\n%w", limit.Round(time.Second), wrong)
		}
		if err := pause(ctx, interval); err != nil {
			return errors.Join(err, wrong)
		}
	}
}

// wrong compares all hosts with what they should have, what is cheap to look at
// first.
func (s *suite) wrong(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	published, err := s.records(ctx)
	if err != nil {
		return err
	}
	for i, h := range s.lab.Hosts {
		if err := s.wrongHost(i, h, published); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	for i, h := range s.lab.Hosts {
		code, body, err := h.Flanneld().Get(ctx, "/readyz")
		if err != nil || code != http.StatusOK {
			return errors.Join(err, fmt.Errorf("%s: /readyz: %d %s", h.Name, code, body))
		}
		have, err := h.Exec(ctx, "sh", "-c", rules)
		if diff := difference(s.rules[i], have); diff != "" {
			return errors.Join(err, fmt.Errorf("%s: packet filter rules (- missing, + too much):\n%s", h.Name, diff))
		}
	}
	for _, h := range s.lab.Hosts {
		if err := s.sees(ctx, h); err != nil {
			return err
		}
	}
	return s.lab.PingAll(ctx).Err()
}

func (s *suite) wrongHost(i int, h *lab.Host, published []record) error {
	env, err := h.ReadFile(lab.DefaultSubnetFile)
	if err != nil {
		return err
	}
	if diff := difference(s.env[i], string(env)); diff != "" {
		return fmt.Errorf("subnet.env:\n%s", diff)
	}
	uplink, err := h.Interface(lab.Uplink)
	if err != nil {
		return err
	}
	have, err := actual(h.Handle)
	if err != nil {
		return err
	}
	if diff := difference(wanted(s.backend, uplink.Attrs().MTU, i, published), have); diff != "" {
		return fmt.Errorf("kernel state (- missing, + too much):\n%s", diff)
	}
	return nil
}

// pinging is a series between the pods of two hosts.
type pinging struct {
	*ping.Series
	from, to int
	family   ipfam.Family
}

func (s *suite) startPings() (out []pinging, err error) {
	for i, a := range s.lab.Hosts {
		for j, b := range s.lab.Hosts[:i] {
			for _, f := range ipfam.All() {
				series, err := a.Pods()[0].StartPatientPing(b.Pods()[0].Addr(f), interval, scaled(time.Second, busy()))
				if err != nil {
					return out, err
				}
				out = append(out, pinging{series, i, j, f})
			}
		}
	}
	return out, nil
}

// stopPings compares what was lost with what the faults cut.
func (s *suite) stopPings(pings []pinging, faults []drawn, took time.Duration, slow float64) error {
	stats := make([]ping.Stats, len(pings))
	var group errgroup.Group
	for i, p := range pings {
		group.Go(func() error { stats[i] = p.Stop(); return nil })
	}
	_ = group.Wait()
	var errs []error
	for i, p := range pings {
		allowed := 0
		for _, d := range faults {
			if d.victim == p.from || d.victim == p.to {
				allowed += d.mayLose(s.backend, slow)
			}
		}
		if stats[i].Lost > allowed {
			errs = append(errs, fmt.Errorf("host%d to host%d, %v: %s in %s; the fault explains %d",
				p.from+1, p.to+1, p.family, stats[i], took.Round(time.Millisecond), allowed))
		}
	}
	return errors.Join(errs...)
}

// mayLose is how many pings of one series the fault explains.
func (d drawn) mayLose(backend string, slow float64) int {
	cut := scaled(d.cuts, slow)
	stopped := backend == udp && (d.stops || d.restarts)
	if stopped {
		cut = scaled(restart, slow)
	}
	if d.cutsAll || stopped {
		// What makes and undoes the fault takes its time too.
		cut += d.lasts + scaled(time.Second, slow)
	}
	return int(cut / interval)
}

// after checks what must be so after every round, and not only at last.
func (s *suite) after(ctx context.Context) error {
	var errs []error
	for i, h := range s.lab.Hosts {
		have, err := h.Exec(ctx, "sh", "-c", show)
		if diff := difference(s.foreign[i], have); diff != "" || err != nil {
			errs = append(errs, err, fmt.Errorf("%s: what is not ours has changed:\n%s", h.Name, diff))
		}
		errs = append(errs, s.frugal(ctx, i))
	}
	return errors.Join(errs...)
}

// logs are the lengths of the logs, of the hosts and of etcd.
func (s *suite) logs() (out []int) {
	for _, text := range s.texts() {
		out = append(out, len(text))
	}
	return out
}

func (s *suite) texts() (out []string) {
	for _, h := range s.lab.Hosts {
		out = append(out, h.Log())
	}
	return append(out, s.lab.Etcd.Log())
}

// since returns what was logged since then.
func (s *suite) since(before []int) string {
	var b strings.Builder
	for i, text := range s.texts() {
		name := "etcd"
		if i < len(s.lab.Hosts) {
			name = s.lab.Hosts[i].Name
		}
		if len(text) > before[i] {
			fmt.Fprintf(&b, "log of %s:\n%s", name, text[before[i]:])
		}
	}
	return b.String()
}
