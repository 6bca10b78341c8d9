package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// NetworkReady says that this node can carry pods. The condition
// NetworkUnavailable is set to false then, if Options ask for it; it is never
// set to true. It may be called again.
func (m *Manager) NetworkReady() { m.readyOnce.Do(func() { close(m.ready) }) }

// keepCondition writes the condition once for each Node that this node has
// had, and tries until it is written.
func (m *Manager) keepCondition(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-m.ready:
	}
	var written types.UID
	for retry := newRetry(); ; {
		n, err := m.own.await(ctx, func(n *Node) bool { return n != nil && n.UID != written })
		if err != nil {
			return err
		}
		err = m.writeCondition(ctx, n)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			m.voice.say(topicCondition, nil)
			m.log.Debug("condition NetworkUnavailable set to false", "node", n.Name)
			written, retry = n.UID, newRetry()
			continue
		}
		m.voice.say(topicCondition, fmt.Errorf("condition NetworkUnavailable of Node %q not set to false: %w; see: kubectl describe node %s",
			n.Name, plain(err), n.Name))
		if err := retry.wait(ctx); err != nil {
			return err
		}
	}
}

func (m *Manager) writeCondition(ctx context.Context, n *Node) error {
	now := time.Now().UTC().Format(time.RFC3339)
	status, err := json.Marshal(map[string]any{"conditions": []map[string]string{{
		"type": "NetworkUnavailable", "status": "False",
		"reason": "FlannelIsUp", "message": "Flannel is running on this node",
		"lastTransitionTime": now, "lastHeartbeatTime": now,
	}}})
	if err != nil {
		return err
	}
	patch := mergePatch{Status: status}
	patch.Metadata.UID = string(n.UID)
	return m.try(ctx, topicCondition, rule{"patch", "nodes/status"}, func(ctx context.Context) error {
		_, err := m.client.patchStatus(ctx, n.Name, patch)
		return err
	})
}
