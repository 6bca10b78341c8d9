package loop

import (
	"cmp"
	"time"
)

// Contention slows down a daemon that restores its record each time somebody
// else changes it. The first restorations are made at once; if the changes go
// on, somebody else does the same, and the delay grows. Contention takes the
// time as an argument and does nothing by itself. The zero Contention is ready
// for use, by one goroutine.
type Contention struct {
	// First and Last bound the delay once there is contention; 0 means one
	// second and one minute.
	First, Last time.Duration
	// Gap is the least time between any two restorations: some daemons need it
	// to see what they have written.
	Gap time.Duration
	// Quiet is for how long at least nobody must change the record for the
	// contention to be over; 0 means ten times First.
	Quiet time.Duration

	state contentionState
}

type contentionState struct {
	restored int
	last     time.Time // of the restorations
	delay    time.Duration
	deferred time.Time // zero if nobody has deferred the next one
	skip     bool
}

// restoredAtOnce is how often the record is restored without a delay.
const restoredAtOnce = 3

const defaultMostDelay = time.Minute

// Restored notes that the record was restored. It reports whether that is the
// beginning of contention.
func (c *Contention) Restored(now time.Time) (begins bool) {
	s := &c.state
	if !now.Before(c.QuietAt()) {
		*s = contentionState{}
	}
	*s = contentionState{restored: s.restored + 1, last: now, delay: s.delay}
	if s.restored >= restoredAtOnce {
		s.delay = min(max(cmp.Or(c.First, defaultFirst), 2*s.delay), cmp.Or(c.Last, defaultMostDelay))
	}
	return s.restored == restoredAtOnce
}

// Next returns when the record may be restored: at once if that is in the past.
func (c *Contention) Next() time.Time {
	s := &c.state
	at := s.last.Add(max(c.Gap, s.delay))
	switch {
	case s.skip:
		return time.Time{}
	case s.deferred.After(at):
		return s.deferred
	}
	return at
}

// NextUrgent is Next for a record whose absence does harm: it is restored after
// limit at the latest, and Defer does not count.
func (c *Contention) NextUrgent(limit time.Duration) time.Time {
	s := &c.state
	if s.skip {
		return time.Time{}
	}
	return s.last.Add(min(max(c.Gap, s.delay), limit))
}

// Defer puts off the next restoration until then, unless it was put off before.
func (c *Contention) Defer(until time.Time) {
	if c.state.deferred.IsZero() {
		c.state.deferred = until
	}
}

// SkipDelay lets the next restoration happen at once.
func (c *Contention) SkipDelay() { c.state.skip = true }

// Active reports whether there is contention.
func (c *Contention) Active() bool { return c.state.restored >= restoredAtOnce }

// QuietAt returns when the contention is over if nobody changes the record.
func (c *Contention) QuietAt() time.Time {
	quiet := cmp.Or(c.Quiet, 10*cmp.Or(c.First, defaultFirst))
	return c.state.last.Add(max(quiet, 3*c.state.delay))
}

// Reset forgets everything. It reports whether there was contention.
func (c *Contention) Reset() bool {
	active := c.Active()
	c.state = contentionState{}
	return active
}
