package main

import (
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/internal/ipfam"
	"flannel/lab/ping"
)

// interval is how often the pods ping each other.
const interval = 50 * time.Millisecond

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

// stopPings compares what was lost with what the faults cut, and returns what
// the series lost that lost most.
func (s *suite) stopPings(running []pinging, faults []drawn, stood []time.Duration, took time.Duration, slow float64) (most int, err error) {
	stats := make([]ping.Stats, len(running))
	var group errgroup.Group
	for i, p := range running {
		group.Go(func() error { stats[i] = p.Stop(); return nil })
	}
	_ = group.Wait()
	var errs []error
	for i, p := range running {
		allowed := 0
		for n, d := range faults {
			if d.victim == p.from || d.victim == p.to {
				allowed += d.mayLose(s.backend, stood[n], slow)
			}
		}
		most = max(most, stats[i].Lost)
		if stats[i].Lost > allowed {
			errs = append(errs, fmt.Errorf("host%d to host%d, %v: %s in %s; the fault explains %d",
				p.from+1, p.to+1, p.family, stats[i], took.Round(time.Millisecond), allowed))
		}
	}
	return most, errors.Join(errs...)
}

// mayLose is how many pings of one series the fault explains that stood so long.
func (d drawn) mayLose(backend string, stood time.Duration, slow float64) int {
	cut, all := d.cuts, d.cutsAll
	if backend == udp && (d.stops || d.restarts) {
		// Packets pass the daemon, which needs its lease and its peers first.
		cut, all = max(cut, begin), true
	}
	cut = scaled(cut, slow)
	if all && d.percent == 0 {
		return pings(cut + stood)
	}
	if all {
		return pings(cut) + lostAtRandom(pings(stood), d.percent)
	}
	return pings(cut)
}

// pings is how many of one series there are in a time.
func pings(d time.Duration) int { return int((d + interval - 1) / interval) }

// lostAtRandom is how many of n are lost at most if each is with this
// probability. Six standard deviations are exceeded once in 10^8 times.
func lostAtRandom(n, percent int) int {
	p := float64(percent) / 100
	return min(n, int(math.Ceil(float64(n)*p+6*math.Sqrt(float64(n)*p*(1-p)))))
}
