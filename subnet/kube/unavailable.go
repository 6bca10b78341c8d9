package kube

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// NetworkReady is called when this node can carry pods. The condition
// NetworkUnavailable is then set to false, if Options ask for it; it is never
// set to true. It may be called again.
func (m *Manager) NetworkReady() { m.readyOnce.Do(func() { close(m.ready) }) }

// keepCondition writes the condition once for each Node that this node has
// had, and repeats it until it is written.
func (m *Manager) keepCondition(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-m.ready:
	}
	var written types.UID
	for {
		err := m.repeat(ctx, condNetwork, func() error {
			n, err := m.own.await(ctx, func(n *Node) bool { return n != nil && n.UID != written })
			if err != nil {
				return err
			}
			if err := m.writeCondition(ctx, n); err != nil {
				return fmt.Errorf("condition NetworkUnavailable of Node %q not set to false: %w; see: kubectl describe node %s",
					n.Name, plain(err), n.Name)
			}
			m.log.Debug("condition NetworkUnavailable set to false", "node", n.Name)
			written = n.UID
			return nil
		})
		if err != nil {
			return err
		}
	}
}

func (m *Manager) writeCondition(ctx context.Context, n *Node) error {
	now := time.Now().UTC().Format(time.RFC3339)
	var patch nodePatch
	patch.Status.Conditions = []map[string]string{{
		"type": "NetworkUnavailable", "status": "False",
		"reason": "FlannelIsUp", "message": "Flannel is running on this node",
		"lastTransitionTime": now, "lastHeartbeatTime": now,
	}}
	return m.try(ctx, condNetwork, rule{"patch", "nodes/status"}, func(ctx context.Context) error {
		_, err := m.client.patchStatus(ctx, n, patch)
		return err
	})
}
