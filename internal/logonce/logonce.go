// Package logonce keeps the log short: what repeats is logged once.
package logonce

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Failures logs a repeating failure when it starts, when it changes and when
// it ends. Its methods may be called by several goroutines.
type Failures struct {
	log   *slog.Logger
	level slog.Level

	mu       sync.Mutex
	failures map[string]failure
}

type failure struct {
	text  string
	since time.Time
}

// NewFailures returns a Failures that logs at this level, and the end of a
// failure as information.
func NewFailures(log *slog.Logger, level slog.Level) *Failures {
	return &Failures{log: log, level: level, failures: map[string]failure{}}
}

// Fail notes that what has failed. A nil error is a success.
func (f *Failures) Fail(what string, err error) {
	if err == nil {
		f.OK(what)
		return
	}
	f.mu.Lock()
	last, failing := f.failures[what]
	since := last.since
	if !failing {
		since = time.Now()
	}
	f.failures[what] = failure{text: err.Error(), since: since}
	f.mu.Unlock()
	if !failing || last.text != err.Error() {
		f.log.Log(context.Background(), f.level, "failing, will retry", "what", what, "err", err)
	}
}

// OK notes that what has succeeded.
func (f *Failures) OK(what string) {
	f.mu.Lock()
	last, failing := f.failures[what]
	delete(f.failures, what)
	f.mu.Unlock()
	if failing {
		f.log.Info("works again", "what", what, "after", time.Since(last.since).Round(time.Millisecond))
	}
}

// Last remembers what was logged last, such as a cause. The zero Last remembers
// the zero value: nothing to log. It is for one goroutine.
type Last[T comparable] struct{ value T }

// Changed remembers a value, and reports whether it is another one than the
// last.
func (l *Last[T]) Changed(value T) bool {
	changed := l.value != value
	l.value = value
	return changed
}

// Set remembers what has been logged, such as addresses. Its methods may be
// called by several goroutines.
type Set[T comparable] struct {
	max int

	mu    sync.Mutex
	known map[T]struct{}
}

// NewSet returns an empty set. It remembers up to max items, so that those whom
// others can invent do not fill the memory or the log: further ones are not
// logged.
func NewSet[T comparable](max int) *Set[T] { return &Set[T]{max: max, known: map[T]struct{}{}} }

// First reports whether the item is to be logged: it is the first time.
func (s *Set[T]) First(item T) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.known[item]; known || len(s.known) >= s.max {
		return false
	}
	s.known[item] = struct{}{}
	return true
}
