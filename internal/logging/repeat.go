package logging

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Repeat logs a repeating failure when it starts, when it changes and when it
// ends, and not each time. Its methods may be called by several goroutines.
type Repeat struct {
	log   *slog.Logger
	level slog.Level

	mu       sync.Mutex
	failures map[string]failure
}

type failure struct {
	text  string
	since time.Time
}

// NewRepeat returns a Repeat that logs failures at this level, and their end
// as information.
func NewRepeat(log *slog.Logger, level slog.Level) *Repeat {
	return &Repeat{log: log, level: level, failures: map[string]failure{}}
}

// Fail says that what has failed. A nil error is a success.
func (r *Repeat) Fail(what string, err error) {
	if err == nil {
		r.OK(what)
		return
	}
	r.mu.Lock()
	last, failing := r.failures[what]
	since := last.since
	if !failing {
		since = time.Now()
	}
	r.failures[what] = failure{text: err.Error(), since: since}
	r.mu.Unlock()
	if !failing || last.text != err.Error() {
		r.log.Log(context.Background(), r.level, "failing, will retry", "what", what, "err", err)
	}
}

// OK says that what has worked.
func (r *Repeat) OK(what string) {
	r.mu.Lock()
	last, failing := r.failures[what]
	delete(r.failures, what)
	r.mu.Unlock()
	if failing {
		r.log.Info("works again", "what", what, "after", time.Since(last.since).Round(time.Millisecond))
	}
}
