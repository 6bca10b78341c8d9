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

// What the daemon may wait for; each has one cause at a time.
const (
	topicServer    = "API server"
	topicName      = "node name"
	topicOwn       = "own node"
	topicFamily    = "pod CIDR of the other family"
	topicPublish   = "publishing"
	topicPeers     = "nodes"
	topicCondition = "node condition"
)

// voice says each cause of waiting once, and when it has passed.
type voice struct {
	log *slog.Logger
	// told gets all causes but that of the API server, nil when there is none.
	// It must not block.
	told func(error)

	mu     sync.Mutex
	causes map[string]cause
}

type cause struct {
	err   error
	since time.Time
}

func newVoice(log *slog.Logger, told func(error)) *voice {
	if told == nil {
		told = func(error) {}
	}
	return &voice{log: log, told: told, causes: map[string]cause{}}
}

// say notes what the topic waits for; nil says that it goes on. It reports
// whether that is another cause than before.
func (v *voice) say(topic string, err error) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	was, waiting := v.causes[topic]
	if err == nil {
		if waiting {
			delete(v.causes, topic)
			v.log.Info("goes on", "what", topic, "after", time.Since(was.since).Round(time.Millisecond))
			v.told(v.causesLocked())
		}
		return waiting
	}
	if waiting && was.err.Error() == err.Error() {
		return false
	}
	next := cause{err: err, since: time.Now()}
	if waiting {
		next.since = was.since
	}
	v.causes[topic] = next
	v.log.Warn("waiting", "what", topic, "err", err)
	v.told(v.causesLocked())
	return true
}

// cause returns for how long the topic has waited, and for what; zero when it
// does not wait.
func (v *voice) cause(topic string) (time.Duration, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c, waiting := v.causes[topic]
	if !waiting {
		return 0, nil
	}
	return time.Since(c.since), c.err
}

func (v *voice) causesLocked() error {
	var parts []string
	for _, topic := range slices.Sorted(maps.Keys(v.causes)) {
		if topic != topicServer {
			parts = append(parts, v.causes[topic].err.Error())
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return errors.New(strings.Join(parts, "; "))
}
