package kube

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"flannel/internal/logonce"
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
	causes *logonce.Failures
	// changed is called with all causes but that of the API server, nil if there
	// is none. It must not block.
	changed func(error)

	mu sync.Mutex // keeps the calls of changed in order
}

func newConditions(log *slog.Logger, changed func(error)) *conditions {
	words := logonce.Words{Level: slog.LevelWarn, Begins: "waiting", Key: "for", Ends: "no longer waiting"}
	return &conditions{causes: words.NewFailures(log), changed: changed}
}

// Set notes why a condition is not met; nil means that it is. It reports whether
// that has changed.
func (c *conditions) Set(condition string, err error) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.causes.Fail(condition, err) {
		return false
	}
	causes := c.causes.Causes()
	delete(causes, condServer)
	var parts []string
	for _, condition := range slices.Sorted(maps.Keys(causes)) {
		parts = append(parts, causes[condition].Error())
	}
	if parts == nil {
		c.changed(nil)
	} else {
		c.changed(errors.New(strings.Join(parts, "; ")))
	}
	return true
}
