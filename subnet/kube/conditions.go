package kube

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// What the manager may wait for; each has one cause at a time.
const (
	condServer  = "API server"
	condName    = "name of the Node"
	condOwn     = "our Node"
	condFamily  = "pod CIDR of the other family"
	condPublish = "annotations of our Node"
	condPeers   = "Nodes"
	condNetwork = "condition NetworkUnavailable"
)

// conditions are what the manager waits for. Each cause is logged once, and its
// end.
type conditions struct {
	log *slog.Logger
	// changed is called with all causes but that of the API server, nil if there
	// is none. It must not block.
	changed func(error)

	mu     sync.Mutex
	causes map[string]cause
}

type cause struct {
	err   error
	since time.Time
}

func newConditions(log *slog.Logger, changed func(error)) *conditions {
	if changed == nil {
		changed = func(error) {}
	}
	return &conditions{log: log, changed: changed, causes: map[string]cause{}}
}

// Set notes why a condition is not met; nil means that it is. It reports whether
// that has changed.
func (c *conditions) Set(condition string, err error) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, waiting := c.causes[condition]
	switch {
	case err == nil && !waiting, err != nil && waiting && was.err.Error() == err.Error():
		return false
	case err == nil:
		delete(c.causes, condition)
		c.log.Info("no longer waiting", "for", condition, "after", time.Since(was.since).Round(time.Millisecond))
	default:
		next := cause{err: err, since: time.Now()}
		if waiting {
			next.since = was.since
		}
		c.causes[condition] = next
		c.log.Warn("waiting", "for", condition, "err", err)
	}
	c.changed(c.causesLocked())
	return true
}

// cause returns for how long a condition has not been met, and why; zero if it
// is met.
func (c *conditions) cause(condition string) (time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cause, waiting := c.causes[condition]
	if !waiting {
		return 0, nil
	}
	return time.Since(cause.since), cause.err
}

func (c *conditions) causesLocked() error {
	var parts []string
	for _, condition := range slices.Sorted(maps.Keys(c.causes)) {
		if condition != condServer {
			parts = append(parts, c.causes[condition].err.Error())
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return errors.New(strings.Join(parts, "; "))
}
