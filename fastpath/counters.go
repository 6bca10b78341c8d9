package fastpath

import "fmt"

// reasons are the names of why packets took their path, as in the programs.
var reasons = [bpfReasonREASONS]string{
	"fast", "no-flow", "no-way", "closed", "flags", "fragment", "options", "ttl", "malformed", "protocol",
	"too-large", "peer", "source", "outer", "link", "route", "away", "failed",
}

// directions are those of packets, seen from the pods.
var directions = [bpfDirectionDIRECTIONS]string{"out", "in"}

// Count is what took one path for one reason. The reason of the fast path is "fast".
type Count struct {
	Direction, Reason string
	Packets, Bytes    uint64
}

// totals are the counters of the programs.
type totals [bpfDirectionDIRECTIONS][bpfReasonREASONS]bpfTotal

func (t *totals) add(more totals) {
	for d := range t {
		for r := range t[d] {
			t[d][r].Packets += more[d][r].Packets
			t[d][r].Bytes += more[d][r].Bytes
		}
	}
}

// totals reads the counters and sums them up over the processors.
func (s *session) totals() (t totals, err error) {
	for d := range t {
		for r := range t[d] {
			var each []bpfTotal
			if err := s.objects.Totals.Lookup(uint32(d)*uint32(bpfReasonREASONS)+uint32(r), &each); err != nil {
				return t, fmt.Errorf("read the counters of the programs: %w", err)
			}
			for _, one := range each {
				t[d][r].Packets += one.Packets
				t[d][r].Bytes += one.Bytes
			}
		}
	}
	return t, nil
}

// Counts returns what was carried since New.
func (f *FastPath) Counts() ([]Count, error) {
	f.open.Lock()
	defer f.open.Unlock()
	sum := f.former
	if f.session != nil {
		t, err := f.session.totals()
		if err != nil {
			return nil, err
		}
		sum.add(t)
	}
	var counts []Count
	for d, direction := range directions {
		for r, reason := range reasons {
			counts = append(counts, Count{direction, reason, sum[d][r].Packets, sum[d][r].Bytes})
		}
	}
	return counts, nil
}

// Flows returns how many flows may be fast.
func (f *FastPath) Flows() int {
	f.open.Lock()
	defer f.open.Unlock()
	if f.session == nil {
		return 0
	}
	return f.session.tracker.count()
}
