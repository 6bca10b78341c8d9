package main

import (
	"iter"
	"math/rand/v2"
	"slices"
	"time"
)

// The backends whose kernel state this suite can predict.
const (
	vxlan  = "vxlan"
	hostgw = "host-gw"
	udp    = "udp"
)

var backends = []string{vxlan, hostgw, udp}

// drawn is a fault with all that chance decides about it.
type drawn struct {
	fault
	// victim and peer count the hosts from 0.
	victim, peer int
	// offset is how long the fault waits after the start of its round, lasts
	// the time until it is undone.
	offset, lasts time.Duration
	// number is for a fault that can be made in several ways.
	number int
}

// table is the part of the table that these settings allow.
func (s *settings) table() []fault {
	return slices.DeleteFunc(faults(), func(f fault) bool {
		switch {
		case !slices.Contains(backends, s.backend), f.backend != "" && f.backend != s.backend:
			return true
		case !slices.Contains(stores, s.store), f.store != "" && f.store != s.store:
			return true
		}
		return !s.only.MatchString(f.name)
	})
}

// draw returns the rounds, counted from 0, and their faults. Rounds with a long
// fault are left out once there were as many as the settings allow.
func (s *settings) draw() iter.Seq2[int, []drawn] {
	table := s.table()
	return func(yield func(int, []drawn) bool) {
		long := 0
		for round := s.first - 1; ; round++ {
			faults := drawRound(s.seed, round, table, s.hosts)
			if slices.ContainsFunc(faults, drawn.long) {
				if long++; s.long >= 0 && long > s.long {
					if !slices.ContainsFunc(table, fault.short) {
						return
					}
					continue
				}
			}
			if !yield(round, faults) {
				return
			}
		}
	}
}

// What a run takes on a quiet machine: to make the cluster, and for each round to
// compare everything and to see all daemons at rest.
const (
	usualStart = 10 * time.Second
	usualRound = 3500 * time.Millisecond
)

// lasts is about how long the rounds take that are asked for. Most recoveries need
// an eighth of the documented wait.
func (s *settings) lasts() time.Duration {
	sum, left := usualStart, s.rounds
	for _, faults := range s.draw() {
		if left == 0 {
			break
		}
		left--
		var longest time.Duration
		for _, d := range faults {
			longest = max(longest, d.offset+d.lasts+d.wait.most/8)
		}
		sum += usualRound + longest
	}
	return sum.Round(10 * time.Second)
}

// drawRound returns the faults of a round: one, or two of different hosts. It
// depends on the arguments alone. All faults come before one comes again.
func drawRound(seed uint64, round int, table []fault, hosts int) []drawn {
	cycle, place := round/len(table), round%len(table)
	order := rand.New(rand.NewPCG(seed, uint64(cycle))).Perm(len(table))
	r := rand.New(rand.NewPCG(^seed, uint64(round)))
	first := drawOne(r, table[order[place]], hosts, r.IntN(hosts))
	if r.IntN(4) > 0 || first.uses != nil {
		return []drawn{first}
	}
	second := drawOne(r, table[r.IntN(len(table))], hosts, (first.victim+1+r.IntN(hosts-1))%hosts)
	if second.victim == first.victim || second.uses != nil || first.store != "" && second.store != "" {
		return []drawn{first}
	}
	return []drawn{first, second}
}

// steady is the host whose daemon runs as long as the suite: growth that a
// restart would hide shows there.
const steady = 0

func drawOne(r *rand.Rand, f fault, hosts, victim int) drawn {
	if f.restarts && victim == steady {
		victim += 1 + r.IntN(hosts-1)
	}
	d := drawn{fault: f, victim: victim, peer: (victim + 1 + r.IntN(hosts-1)) % hosts, number: r.IntN(1 << 16)}
	d.offset = time.Duration(r.IntN(500)) * time.Millisecond
	if f.longest > 0 {
		d.lasts = f.shortest + time.Duration(r.Int64N(int64(f.longest-f.shortest)+1)).Round(time.Millisecond)
	}
	return d
}
