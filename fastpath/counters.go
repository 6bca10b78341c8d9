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

// Counts returns what was carried since the programs were attached; nothing while
// they are not.
func (f *FastPath) Counts() ([]Count, error) {
	s := f.session.Load()
	if s == nil {
		return nil, nil
	}
	var counts []Count
	for d, direction := range directions {
		for r, reason := range reasons {
			var each []bpfTotal
			if err := s.objects.Totals.Lookup(uint32(d)*uint32(bpfReasonREASONS)+uint32(r), &each); err != nil {
				return nil, fmt.Errorf("read the counters of the programs: %w", err)
			}
			c := Count{Direction: direction, Reason: reason}
			for _, t := range each {
				c.Packets += t.Packets
				c.Bytes += t.Bytes
			}
			counts = append(counts, c)
		}
	}
	return counts, nil
}

// Flows returns how many flows may be fast.
func (f *FastPath) Flows() int {
	if s := f.session.Load(); s != nil {
		return s.tracker.count()
	}
	return 0
}
