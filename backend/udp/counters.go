package udp

import "sync/atomic"

// counters count packets that did not simply pass.
type counters struct {
	noLease, expired, tooBig, malformed, unsent, unwritten *atomic.Uint64
	unknownSource, wrongSource, congested                  *atomic.Uint64
}

func newCounters(counter func(reason string) *atomic.Uint64) counters {
	return counters{
		noLease: counter("no-lease"), expired: counter("time-exceeded"), tooBig: counter("too-big"),
		malformed: counter("malformed"), unsent: counter("unsent"), unwritten: counter("unwritten"),
		unknownSource: counter("unknown-source"), wrongSource: counter("wrong-source"), congested: counter("congested"),
	}
}
