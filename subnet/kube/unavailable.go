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
// had, and repeats it until it is written. A restarted daemon finds it as it
// left it and writes nothing, because each write is sent to all nodes.
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
			there := false
			err = m.ask(ctx, func(ctx context.Context) (err error) {
				there, err = m.client.hasCondition(ctx, n.Name, networkReady)
				return err
			})
			if refused(err) || err == nil && !there {
				err = m.writeCondition(ctx, n)
			}
			if err != nil {
				return fmt.Errorf("condition NetworkUnavailable of Node %q not set to false: %w; see: kubectl describe node %s",
					n.Name, plain(err), n.Name)
			}
			m.log.Debug("condition NetworkUnavailable is false", "node", n.Name, "written", !there)
			written = n.UID
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// networkReady is the condition without its times.
var networkReady = condition{Type: "NetworkUnavailable", Status: "False", Reason: "FlannelIsUp", Message: "Flannel is running on this node"}

func (m *Manager) writeCondition(ctx context.Context, n *Node) error {
	now := time.Now().UTC().Format(time.RFC3339)
	var patch nodePatch
	patch.Status.Conditions = []conditionAt{{networkReady, now, now}}
	return m.try(ctx, condNetwork, rule{"patch", "nodes/status"}, func(ctx context.Context) error {
		_, err := m.client.patchStatus(ctx, n, patch)
		return err
	})
}
