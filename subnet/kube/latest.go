package kube

import (
	"context"
	"sync"
)

// latest is a value that others wait for. The zero latest holds nothing yet.
type latest[T any] struct {
	mu    sync.Mutex
	value T
	known bool
	// changed is closed when the value is replaced.
	changed chan struct{}
}

// set replaces the value.
func (l *latest[T]) set(value T) {
	l.update(func(T, bool) (T, bool) { return value, true })
}

// update replaces the value by what f makes of it; known reports whether there
// was one. f must not block. If f returns false the value stays.
func (l *latest[T]) update(f func(was T, known bool) (T, bool)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	value, ok := f(l.value, l.known)
	if !ok {
		return
	}
	l.value, l.known = value, true
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// get returns the value, and a channel that is closed when it is replaced.
func (l *latest[T]) get() (value T, known bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.value, l.known, l.changed
}

// await blocks until there is a value of which ok holds, or ctx ends.
func (l *latest[T]) await(ctx context.Context, ok func(T) bool) (T, error) {
	for {
		value, known, changed := l.get()
		if known && ok(value) {
			return value, nil
		}
		select {
		case <-ctx.Done():
			var none T
			return none, ctx.Err()
		case <-changed:
		}
	}
}
