package kube

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"flannel/internal/wait"
)

// eventNamespace is where Events about Nodes live.
const eventNamespace = "default"

// maxMessage is how long the message of an Event may be, in bytes.
const maxMessage = 1024

// event is the JSON of an Event about a Node.
type event struct {
	Metadata struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	InvolvedObject struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Name       string `json:"name"`
		UID        string `json:"uid"`
	} `json:"involvedObject"`
	Source struct {
		Component string `json:"component"`
		Host      string `json:"host"`
	} `json:"source"`
	Type           string `json:"type"`
	Reason         string `json:"reason"`
	Message        string `json:"message"`
	FirstTimestamp string `json:"firstTimestamp"`
	LastTimestamp  string `json:"lastTimestamp"`
	Count          int    `json:"count"`
}

// newEvent returns a warning about a Node. Kubelets use the name as the UID,
// and so do those who look for Events of a Node.
func newEvent(node, reason, message string, at time.Time) event {
	var e event
	e.Metadata.Name = fmt.Sprintf("%s.%x", node, at.UnixNano())
	e.Metadata.Namespace = eventNamespace
	e.InvolvedObject.APIVersion, e.InvolvedObject.Kind = version.Version, "Node"
	e.InvolvedObject.Name, e.InvolvedObject.UID = node, node
	e.Source.Component, e.Source.Host = "flanneld", node
	e.Type, e.Reason, e.Message = "Warning", reason, strings.ToValidUTF8(message[:min(len(message), maxMessage)], "")
	e.FirstTimestamp = at.UTC().Format(time.RFC3339)
	e.LastTimestamp, e.Count = e.FirstTimestamp, 1
	return e
}

// tell puts what an operator can mend on the Node as an Event. It never
// blocks: an Event is a courtesy.
func (m *Manager) tell(n *Node, err error) {
	var c *causeError
	if !errors.As(err, &c) {
		return
	}
	select {
	case m.events <- newEvent(n.Name, c.reason, c.text, time.Now()):
	default:
	}
}

// PostEvent posts a warning about this node's Node. It waits for the Node and
// for the API server; an error means that it was not posted.
func (m *Manager) PostEvent(ctx context.Context, reason, message string) error {
	n, err := m.own.await(ctx, func(n *Node) bool { return n != nil })
	if err != nil {
		return err
	}
	e := newEvent(n.Name, reason, message, time.Now())
	return m.gate.do(ctx, func(ctx context.Context) error { return m.client.createEvent(ctx, eventNamespace, e) })
}

// An Event tells of an outage of the API server that was known for longOutage
// or more; a time-out has lasted longer before it is known. All nodes see the end
// at once: they post within outageSpread.
const (
	longOutage   = 5 * time.Second
	outageSpread = 15 * time.Second
)

// postOutages posts an Event after each long outage of the API server, until
// ctx ends.
func (m *Manager) postOutages(ctx context.Context) error {
	for {
		err, known, changed := m.outage.get()
		var c *causeError
		if known && errors.As(err, &c) {
			if err := wait.For(ctx, rand.N(outageSpread)); err != nil {
				return err
			}
			if err := m.PostEvent(ctx, c.reason, "resolved: "+c.text); err != nil && ctx.Err() == nil {
				m.log.Debug("event not posted", "reason", c.reason, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// postEvents posts Events until ctx ends. Where that is not allowed or does
// not work they are left out.
func (m *Manager) postEvents(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-m.events:
			if err := m.client.createEvent(ctx, eventNamespace, e); err != nil {
				m.log.Debug("event not posted", "reason", e.Reason, "err", err)
			}
		}
	}
}
