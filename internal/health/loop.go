package health

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// hangsAfter is how long a loop may work without coming round.
const hangsAfter = 5 * time.Minute

// Loop is a loop of this process. Whatever it does between Works and Waits ends by
// itself, if nothing is wrong with this program: it waits for no store, API, cloud
// or command meanwhile. Nobody watches a nil Loop.
type Loop struct {
	name  string
	start time.Time
	// since is when it began to work, after start; 0 while it waits.
	since atomic.Int64
}

// AddLoop adds a loop that waits. /healthz fails while it works for too long.
func (r *Registry) AddLoop(name string) *Loop {
	l := &Loop{name: name, start: time.Now().Add(-1)}
	r.mu.Lock()
	r.loops = append(r.loops, l)
	r.mu.Unlock()
	return l
}

// Works notes that the loop begins to work.
func (l *Loop) Works() {
	if l != nil {
		l.since.Store(int64(time.Since(l.start)))
	}
}

// Waits notes that the loop has come round.
func (l *Loop) Waits() {
	if l != nil {
		l.since.Store(0)
	}
}

// loopKey is that of the loop in a context.
type loopKey struct{}

// WithLoop returns a context for what a loop calls while it works.
func WithLoop(ctx context.Context, l *Loop) context.Context {
	return context.WithValue(ctx, loopKey{}, l)
}

// Outside notes that the loop of a context, if it has one, waits for something
// outside of this process, such as a command, until back is called.
func Outside(ctx context.Context) (back func()) {
	l, _ := ctx.Value(loopKey{}).(*Loop)
	l.Waits()
	return l.Works
}

// Hanging returns a line for each loop that has not come round for too long. The
// time is monotonic: neither a clock that is set nor a host that sleeps counts.
func (r *Registry) Hanging() (lines []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.loops {
		since := time.Duration(l.since.Load())
		if took := time.Since(l.start) - since; since != 0 && took > hangsAfter {
			lines = append(lines, fmt.Sprintf("%s: has not come round for %s", l.name, took.Round(time.Second)))
		}
	}
	return lines
}
