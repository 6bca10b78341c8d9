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
	text  string
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
	if waiting && was.text == err.Error() {
		return false
	}
	next := cause{text: err.Error(), since: time.Now()}
	if waiting {
		next.since = was.since
	}
	v.causes[topic] = next
	v.log.Warn("waiting", "what", topic, "err", err)
	v.told(v.causesLocked())
	return true
}

func (v *voice) causesLocked() error {
	var parts []string
	for _, topic := range slices.Sorted(maps.Keys(v.causes)) {
		if topic != topicServer {
			parts = append(parts, v.causes[topic].text)
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return errors.New(strings.Join(parts, "; "))
}
