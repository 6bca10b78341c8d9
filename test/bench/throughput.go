package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/lab"
	"flannel/internal/wait"
)

// Throughput of the kernel's vxlan that udp has to reach.
const (
	udpShareTCP     = 0.5
	udpSharePackets = 0.65
)

// throughput measures how much goes from a pod on one host to one on another,
// with each backend in turn in each round, so that a machine that is slow at the moment is
// so for all.
func (b *bench) throughput(ctx context.Context) ([]row, error) {
	if err := b.close(); err != nil {
		return nil, err
	}
	var rows []row
	figures := map[string]*speed{}
	names := []string{"vxlan", "udp", "host-gw"}
	for _, name := range names {
		figures[name] = &speed{}
	}
	for range b.roundsOr(3) {
		for _, name := range names {
			if err := b.oneThroughput(ctx, name, figures[name]); err != nil {
				return rows, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	for _, name := range names {
		rows = append(rows, figures[name].rows(name)...)
	}
	return append(rows, compare(figures["udp"], figures["vxlan"])...), nil
}

// speed are the figures of one backend.
type speed struct{ gbits, packets, disorder, idle []float64 }

func (s *speed) rows(name string) []row {
	flannel := ipfam.Pair[string]{}
	if name == "udp" {
		flannel = ipfam.Pair[string]{"0.41 Gbit/s", "20 to 30 thousand"}
	}
	rows := []row{
		{Measure: name + ", pod to pod, one TCP stream", Samples: s.gbits, Unit: gigabits, Flannel: flannel[0]},
		{Measure: name + ", datagrams of 1200 bytes per second", Samples: s.packets, Unit: count, Flannel: flannel[1]},
		{Measure: "  of them out of order", Samples: s.disorder, Unit: count, Limit: atMost(0)},
	}
	if name == "udp" {
		rows = append(rows, row{Measure: "  CPU while idle", Samples: s.idle, Unit: percent, Limit: atMost(0.1)})
	}
	return rows
}

// compare says what part of the kernel's speed user space reaches, the other
// way round, because limits are upper ones.
func compare(udp, vxlan *speed) []row {
	return []row{
		{Measure: "vxlan beside udp, TCP", Samples: []float64{median(vxlan.gbits) / median(udp.gbits)}, Unit: times, Limit: atMost(1 / udpShareTCP)},
		{Measure: "vxlan beside udp, datagrams", Samples: []float64{median(vxlan.packets) / median(udp.packets)}, Unit: times, Limit: atMost(1 / udpSharePackets)},
	}
}

// lasting is how long each stream runs.
const lasting = 3 * time.Second

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
	from, to := l.Hosts[0].Pods()[0], l.Hosts[1].Pods()[0]
	gbits, err := stream(ctx, from, to)
	if err != nil {
		return err
	}
	packets, disorder, err := flood(from, to)
	if err != nil {
		return err
	}
	s.gbits, s.packets = append(s.gbits, gbits), append(s.packets, packets)
	s.disorder = append(s.disorder, disorder)
	if name != "udp" {
		return nil
	}
	return s.idleAfter(ctx, l)
}

// idleAfter measures the CPU time of a daemon that has nothing to move.
func (s *speed) idleAfter(ctx context.Context, l *lab.Lab) error {
	if err := wait.For(ctx, time.Second); err != nil {
		return err
	}
	p := process(l.Hosts[0].Flanneld().PID())
	before, err := p.cpu()
	if err != nil {
		return err
	}
	if err := wait.For(ctx, lasting); err != nil {
		return err
	}
	after, err := p.cpu()
	s.idle = append(s.idle, 100*(after-before).Seconds()/lasting.Seconds())
	return err
}
