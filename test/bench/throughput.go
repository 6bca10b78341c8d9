package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/loop"
	"flannel/lab"
)

// Throughput of the kernel's vxlan that udp has to reach.
const (
	udpShareTCP     = 0.5
	udpSharePackets = 0.65
)

// bare is the path that every backend is compared with.
const bare = "bare veth"

// throughput measures how much goes from a pod on one host to one on another,
// with each backend in turn in each round, so that a machine that is slow at the
// moment is so for all; and the same over a veth pair alone.
func (b *bench) throughput(ctx context.Context) ([]row, error) {
	if err := b.close(); err != nil {
		return nil, err
	}
	figures := map[string]*speed{}
	names := []string{bare, "host-gw", "vxlan", "udp"}
	for _, name := range names {
		figures[name] = &speed{}
	}
	for range b.roundsOr(4) {
		if err := oneBare(ctx, figures[bare]); err != nil {
			return nil, fmt.Errorf("%s: %w", bare, err)
		}
		for _, name := range names[1:] {
			if err := b.oneThroughput(ctx, name, figures[name]); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	var rows []row
	for _, name := range names {
		rows = append(rows, figures[name].rows(name, figures[bare])...)
	}
	return append(rows, beside(figures["udp"], figures["vxlan"])...), nil
}

// speed are the figures of one path.
type speed struct{ gbits, packets, requests, disorder, idle []float64 }

func (s *speed) rows(name string, veth *speed) []row {
	flannel := ipfam.Pair[string]{}
	if name == "udp" {
		flannel = ipfam.Pair[string]{"0.41 Gbit/s", "20 to 30 thousand"}
	}
	pods := name
	if name != bare {
		pods += ", pod to pod"
	}
	var rows []row
	add := func(r row, x string, without []float64) {
		r.Higher, r.Mark = true, &mark{"throughput", name, x}
		rows = append(rows, r)
		if name != bare {
			rows = append(rows, row{Measure: "  beside " + bare, Samples: quotients(r.Samples, without), Unit: times, Higher: true})
		}
	}
	add(row{Measure: pods + ", one TCP stream", Samples: s.gbits, Unit: gigabits, Flannel: flannel[0]}, "one TCP stream", veth.gbits)
	add(row{Measure: pods + ", datagrams of 1200 bytes per second", Samples: s.packets, Flannel: flannel[1]}, "datagrams per second", veth.packets)
	rows = append(rows, row{Measure: "  of them out of order", Samples: s.disorder, Limit: atMost(0)})
	add(row{Measure: pods + ", requests with a response per second", Samples: s.requests}, "requests per second", veth.requests)
	if name == "udp" {
		rows = append(rows, row{Measure: "udp, CPU while idle", Samples: s.idle, Unit: percent, Limit: atMost(0.1)})
	}
	return rows
}

// beside returns what part of the kernel's speed user space reaches.
func beside(udp, vxlan *speed) []row {
	return []row{
		{Measure: "udp beside vxlan, one TCP stream", Samples: quotients(udp.gbits, vxlan.gbits), Unit: times, Higher: true, Limit: atLeast(udpShareTCP)},
		{Measure: "udp beside vxlan, datagrams", Samples: quotients(udp.packets, vxlan.packets), Unit: times, Higher: true, Limit: atLeast(udpSharePackets)},
	}
}

// quotients divides the figures of each round.
func quotients(a, b []float64) []float64 {
	out := make([]float64, 0, len(a))
	for i := range a {
		out = append(out, a[i]/b[i])
	}
	return out
}

// lasting is how long each stream runs.
const lasting = 3 * time.Second

// oneBare measures a veth pair alone.
func oneBare(ctx context.Context, s *speed) error {
	from, to, err := bareVeth()
	if err != nil {
		return err
	}
	return errors.Join(s.measure(ctx, from, to), closeEnds(from, to))
}

func (b *bench) oneThroughput(ctx context.Context, name string, s *speed) (err error) {
	l, err := lab.New(ctx, lab.Options{Hosts: 2, Binaries: b.binaries, Backend: fmt.Sprintf(`{"Type": %q}`, name)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	up, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := l.Up(up); err != nil {
		return err
	}
	if err := l.WaitConnected(up); err != nil {
		return err
	}
	if err := s.measure(ctx, endOf(l.Hosts[0].Pods()[0]), endOf(l.Hosts[1].Pods()[0])); err != nil || name != "udp" {
		return err
	}
	return s.idleAfter(ctx, l)
}

// measure takes one figure of each kind.
func (s *speed) measure(ctx context.Context, from, to end) error {
	gbits, err := stream(ctx, from, to)
	if err != nil {
		return err
	}
	packets, disorder, err := flood(from, to)
	if err != nil {
		return err
	}
	perSecond, err := requests(ctx, from, to)
	if err != nil {
		return err
	}
	s.gbits, s.packets, s.requests = append(s.gbits, gbits), append(s.packets, packets), append(s.requests, perSecond)
	s.disorder = append(s.disorder, disorder)
	return nil
}

// idleAfter measures the CPU time of a daemon that has nothing to move.
func (s *speed) idleAfter(ctx context.Context, l *lab.Lab) error {
	if err := loop.Wait(ctx, time.Second); err != nil {
		return err
	}
	p := process(l.Hosts[0].Flanneld().PID())
	before, err := p.cpu()
	if err != nil {
		return err
	}
	if err := loop.Wait(ctx, lasting); err != nil {
		return err
	}
	after, err := p.cpu()
	s.idle = append(s.idle, 100*(after-before).Seconds()/lasting.Seconds())
	return err
}
