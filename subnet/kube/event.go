package kube

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

const (
	// eventNamespace is where Events about Nodes are.
	eventNamespace = "default"
	// maxMessage is how long the message of an Event may be, in bytes.
	maxMessage = 1024
	// maxEvents is how many Events may wait to be posted.
	maxEvents = 8
)

// An Event is posted about an outage of the API server that was known for
// longOutage or more; a timeout has lasted longer before it is known. All nodes
// see the end at once: they post within outageSpread.
const (
	longOutage   = 5 * time.Second
	outageSpread = 15 * time.Second
)

// event is a warning about our Node.
type event struct {
	reason, message string
	at              time.Time
}

// json is the Event about a Node. Kubelets use its name as the UID, and so do
// those who look for Events of a Node.
func (e event) json(node string) map[string]any {
	at := e.at.UTC().Format(time.RFC3339)
	return map[string]any{
		"metadata":       map[string]string{"name": fmt.Sprintf("%s.%x", node, e.at.UnixNano()), "namespace": eventNamespace},
		"involvedObject": map[string]string{"apiVersion": version.Version, "kind": "Node", "name": node, "uid": node},
		"source":         map[string]string{"component": "flanneld", "host": node},
		"type":           "Warning",
		"reason":         e.reason,
		"message":        strings.ToValidUTF8(e.message[:min(len(e.message), maxMessage)], ""),
		"firstTimestamp": at,
		"lastTimestamp":  at,
		"count":          1,
	}
}

// PostEvent posts a warning about our Node. It waits for the Node and for the
// API server; an error means that it was not posted.
func (m *Manager) PostEvent(ctx context.Context, reason, message string) error {
	return m.post(ctx, event{reason, message, time.Now()})
}

func (m *Manager) post(ctx context.Context, e event) error {
	n, err := m.own.await(ctx, func(n *Node) bool { return n != nil })
	if err != nil {
		return err
	}
	if err := m.breaker.pass(ctx); err != nil {
		return err
	}
	return m.client.createEvent(ctx, eventNamespace, e.json(n.Name))
}

// notify posts what an operator can correct as an Event, if our Node is known.
// It never blocks: an Event is a courtesy.
func (m *Manager) notify(err error) {
	var c *causeError
	if m.node() != nil && errors.As(err, &c) {
		m.queue(event{c.reason, c.text, time.Now()})
	}
}

// notifyOutage posts an Event about an outage of the API server that has ended.
func (m *Manager) notifyOutage(lasted time.Duration, err error) {
	var c *causeError
	if (lasted >= longOutage || errors.Is(err, errNoAnswer)) && errors.As(err, &c) {
		time.AfterFunc(rand.N(outageSpread), func() { m.queue(event{c.reason, "resolved: " + c.text, time.Now()}) })
	}
}

func (m *Manager) queue(e event) {
	select {
	case m.events <- e:
	default:
	}
}

// postEvents posts the Events in the queue until ctx ends. Those that are
// rejected are dropped.
func (m *Manager) postEvents(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-m.events:
			if err := m.post(ctx, e); err != nil && ctx.Err() == nil {
				m.log.Debug("event not posted", "reason", e.reason, "err", err)
			}
		}
	}
}
