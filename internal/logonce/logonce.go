// Package logonce keeps the log short: what repeats is logged once.
package logonce

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Failures logs a repeating failure when it begins, when its cause changes and
// when it ends. Its methods may be called by several goroutines.
type Failures struct {
	log   *slog.Logger
	words Words

	mu       sync.Mutex
	failures map[string]failure
}

// Words are how failures are logged. Key is that of the name of what fails; if it
// is empty, the name is not logged. Without Begins the messages start with the name.
// The end of a failure is information.
type Words struct {
	Level             slog.Level
	Begins, Key, Ends string
}

// of returns the messages for the failure of what.
func (w Words) of(what string) (begins, ends string) {
	if w.Begins == "" {
		return what + " failed, retrying", what + " works again"
	}
	return w.Begins, w.Ends
}

type failure struct {
	err   error
	since time.Time
}

// NewFailures returns a Failures that logs at this level, in the usual words.
func NewFailures(log *slog.Logger, level slog.Level) *Failures {
	return Words{Level: level}.NewFailures(log)
}

// NewFailures returns a Failures that logs in these words.
func (w Words) NewFailures(log *slog.Logger) *Failures {
	return &Failures{log: log, words: w, failures: map[string]failure{}}
}

// Fail notes why what has failed; a nil error is a success. It reports whether
// the cause is another one than before.
func (f *Failures) Fail(what string, err error) (changed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := f.failures[what]
	if CauseOf(err) == CauseOf(last.err) {
		return false
	}
	begins, ends := f.words.of(what)
	var attrs []any
	if f.words.Key != "" {
		attrs = append(attrs, f.words.Key, what)
	}
	if err == nil {
		delete(f.failures, what)
		f.log.Info(ends, append(attrs, "after", time.Since(last.since).Round(time.Millisecond))...)
		return true
	}
	if last.err == nil {
		last.since = time.Now()
	}
	f.failures[what] = failure{err, last.since}
	f.log.Log(context.Background(), f.words.Level, begins, append(attrs, "err", err)...)
	return true
}

// OK notes that what has succeeded.
func (f *Failures) OK(what string) { f.Fail(what, nil) }

// Cause returns for how long what has failed, and why; zero if it does not.
func (f *Failures) Cause(what string) (time.Duration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if last := f.failures[what]; last.err != nil {
		return time.Since(last.since), last.err
	}
	return 0, nil
}

// Causes returns why each thing fails, by its name.
func (f *Failures) Causes() map[string]error {
	f.mu.Lock()
	defer f.mu.Unlock()
	causes := map[string]error{}
	for what, failure := range f.failures {
		causes[what] = failure.err
	}
	return causes
}

// CauseOf returns what distinguishes the cause of an error from others: its text,
// unless it has a method Cause because the text varies. It is empty without an
// error.
func CauseOf(err error) string {
	var varies interface{ Cause() string }
	switch {
	case err == nil:
		return ""
	case errors.As(err, &varies):
		return varies.Cause()
	}
	return err.Error()
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
