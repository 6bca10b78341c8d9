package main

import (
	"context"
	"log/slog"
	"time"

	"flannel/internal/health"
	"flannel/internal/loop"
)

// eventEvery is how often at most an Event is posted about one check.
const eventEvery = time.Minute

// events posts notes that have a reason as Events about this node: when they
// begin and when they change. An Event is a courtesy: one that is refused is
// not posted again.
type events struct {
	log    *slog.Logger
	health *health.Registry
	// changed is sent when the health has changed.
	changed loop.Signal
	// post may block for as long as the store does not answer; it is nil where
	// there are no Events.
	post func(ctx context.Context, reason, message string) error

	posted map[string]posted // by name of the check
}

// posted is the last Event about a check; problem is empty when the check has
// been fine since.
type posted struct {
	problem string
	at      time.Time
}

// run blocks until ctx ends.
func (e *events) run(ctx context.Context) error {
	e.posted = map[string]posted{}
	loop := e.health.AddLoop("events")
	for {
		loop.Works()
		due, waiting := e.due(time.Now())
		for _, n := range due {
			loop.Waits()
			err := e.post(ctx, n.Reason, n.Problem)
			loop.Works()
			if err != nil && ctx.Err() == nil {
				e.log.Debug("event not posted", "reason", n.Reason, "err", err)
			}
			e.posted[n.Name] = posted{n.Problem, time.Now()}
		}
		if len(due) > 0 {
			continue // posting takes time
		}
		loop.Waits()
		var later <-chan time.Time
		if waiting > 0 {
			later = time.After(waiting)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.changed:
		case <-later:
		}
	}
}

// due returns the notes to be posted, and after which time the next ones are;
// 0 when nothing but a change can bring any.
func (e *events) due(now time.Time) (due []health.Notice, next time.Duration) {
	present := map[string]bool{}
	for _, n := range e.health.Notices() {
		present[n.Name] = true
		last, known := e.posted[n.Name]
		rest := last.at.Add(eventEvery).Sub(now)
		switch {
		case n.Reason == "" || known && last.problem == n.Problem:
		case !known || rest <= 0:
			due = append(due, n)
		case next == 0 || rest < next:
			next = rest
		}
	}
	for name, last := range e.posted {
		if !present[name] {
			e.posted[name] = posted{at: last.at}
		}
	}
	return due, next
}
