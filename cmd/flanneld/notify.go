package main

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"flannel/internal/health"
	"flannel/internal/loop"
	"flannel/internal/sdnotify"
)

// While the daemon waits for its cluster it asks systemd every extendEvery for
// extendBy more time, so that the start is not given up.
const (
	extendEvery = 10 * time.Second
	extendBy    = 30 * time.Second
)

// notifier notifies systemd of the node's health.
type notifier struct {
	log    *slog.Logger
	sd     sdnotify.Notifier
	health *health.Registry
	// changed is sent when the health has changed.
	changed loop.Signal
	// onReady is called when the node is ready for the first time. It must not
	// block and may be nil.
	onReady func()
}

// run blocks until ctx ends.
func (n *notifier) run(ctx context.Context) error {
	extend := time.NewTicker(extendEvery)
	defer extend.Stop()
	ready, status := false, ""
	loop := n.health.AddLoop("notifications")
	n.send(n.sd.ExtendTimeout(extendBy))
	for {
		// Read before the readiness: a status is not ready before the node is.
		text := n.text()
		if n.health.Ready() && !ready {
			ready = true
			n.log.Info("node ready")
			if n.onReady != nil {
				n.onReady()
			}
			n.send(n.sd.Ready())
			extend.Stop()
		}
		if text != status {
			status = text
			n.send(n.sd.Status(status))
		}
		loop.Waits()
		select {
		case <-ctx.Done():
			n.send(n.sd.Stopping())
			return ctx.Err()
		case <-extend.C:
			n.send(n.sd.ExtendTimeout(extendBy))
		case <-n.changed:
		}
		loop.Works()
	}
}

func (n *notifier) text() string {
	problems := strings.Join(n.health.Problems(), "; ")
	switch {
	case !n.health.Ready():
		return "waiting: " + problems
	case problems != "":
		return "ready; " + problems
	}
	return "ready"
}

func (n *notifier) send(err error) {
	if err != nil {
		n.log.Debug("systemd not notified", "err", err)
	}
}
