package kube

import (
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
	// told gets all causes in one line, "" when there is none. It must not
	// block.
	told func(string)

	mu     sync.Mutex
	causes map[string]cause
}

type cause struct {
	text  string
	since time.Time
}

func newVoice(log *slog.Logger, told func(string)) *voice {
	if told == nil {
		told = func(string) {}
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
			v.told(v.lineLocked())
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
	v.told(v.lineLocked())
	return true
}

func (v *voice) lineLocked() string {
	var parts []string
	for _, topic := range slices.Sorted(maps.Keys(v.causes)) {
		parts = append(parts, v.causes[topic].text)
	}
	return strings.Join(parts, "; ")
}
