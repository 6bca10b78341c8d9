package kube

import (
	"context"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// errRestored says that the API server's store has gone back to an earlier
// state, as after a restore from a backup.
var errRestored = errors.New("the store of the API server was restored")

// follow keeps a store like the Nodes that a field selector names until ctx
// ends. It begins anew when the API server has gone back to an earlier state:
// its versions count again from there, and a watch that goes on from a later
// one hears nothing until they have caught up.
func (m *Manager) follow(ctx context.Context, name, topic, selector string, store cache.ReflectorStore) error {
	for ctx.Err() == nil {
		attempt, again := context.WithCancelCause(ctx)
		m.newReflector(name, topic, selector, store, again).RunWithContext(attempt)
		if errors.Is(context.Cause(attempt), errRestored) {
			m.log.Warn("the API server has an earlier state than before, listing anew", "what", topic)
		}
		again(nil)
	}
	return ctx.Err()
}

// wentBack reports whether the server's present version is lower than the one
// that a watch would go on from. It is one small request for each watch, and a
// watch lasts minutes.
func (m *Manager) wentBack(ctx context.Context, topic string, o metav1.ListOptions) (bool, error) {
	seen := revision(o.ResourceVersion)
	if seen == 0 || o.SendInitialEvents != nil {
		return false, nil // the server says when it does not know a version
	}
	var page *NodeList
	err := m.try(ctx, topic, rule{"list", "nodes"}, func(ctx context.Context) (err error) {
		page, err = m.client.list(ctx, metav1.ListOptions{FieldSelector: o.FieldSelector, Limit: 1})
		return err
	})
	if err != nil {
		return false, err
	}
	now := revision(page.ResourceVersion)
	return now != 0 && now < seen, nil
}
