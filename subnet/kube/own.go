package kube

import (
	"context"
	"errors"
	"net/netip"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"

	"flannel/internal/ipfam"
)

// followOwn finds out what this node's Node is called and follows it.
func (m *Manager) followOwn(ctx context.Context) error {
	name, err := m.findName(ctx)
	if err != nil {
		return err
	}
	m.name.update(func(string, bool) (string, bool) { return name, true })
	return m.follow(ctx, "own node", topicOwn, "metadata.name="+name, ownStore{m})
}

func (m *Manager) findName(ctx context.Context) (string, error) {
	n := chooseName(m.o.Getenv, m.o.Hostname)
	for retry := newRetry(); n.name == ""; {
		err := m.try(ctx, topicName, rule{"get", "pods"}, func(ctx context.Context) (err error) {
			n.name, err = m.client.nodeOfPod(ctx, n.namespace, n.pod)
			return err
		})
		if err == nil && n.name == "" {
			err = errors.New("it has no node yet")
		}
		if err == nil {
			break
		}
		m.voice.say(topicName, n.unknown(err))
		if err := retry.wait(ctx); err != nil {
			return "", err
		}
	}
	m.voice.say(topicName, nil)
	return n.name, nil
}

// ownStore gets this node's Node from a reflector.
type ownStore struct{ m *Manager }

var _ cache.TransformingStore = ownStore{}

// Transformer keeps what matters.
func (s ownStore) Transformer() cache.TransformFunc { return stripped(s.m.keys.prefix) }

// Add implements cache.ReflectorStore.
func (s ownStore) Add(obj any) error { return s.Update(obj) }

// Update implements cache.ReflectorStore.
func (s ownStore) Update(obj any) error {
	n, err := asNode(obj)
	if err != nil {
		return err
	}
	n.strip(s.m.keys.prefix)
	s.m.observe(n)
	return nil
}

// Delete implements cache.ReflectorStore.
func (s ownStore) Delete(any) error {
	s.m.own.update(func(*Node, bool) (*Node, bool) { return nil, true })
	return nil
}

// Replace implements cache.ReflectorStore.
func (s ownStore) Replace(list []any, _ string) error {
	if len(list) == 0 {
		return s.Delete(nil)
	}
	n, err := asNode(list[0])
	if err != nil {
		return err
	}
	n.strip(s.m.keys.prefix)
	s.m.own.update(func(*Node, bool) (*Node, bool) { return n, true })
	return nil
}

// Resync implements cache.ReflectorStore.
func (s ownStore) Resync() error { return nil }

// Identity is the UID of this node's Node: it is another one when the Node was
// made anew. It is empty before the first answer.
func (m *Manager) Identity() string {
	if n, known, _ := m.own.get(); known && n != nil {
		return string(n.UID)
	}
	return ""
}

// observe takes a state of this node's Node, unless a later one is known: the
// answer to a patch may overtake the watch.
func (m *Manager) observe(n *Node) {
	m.own.update(func(was *Node, known bool) (*Node, bool) {
		stale := known && was != nil && was.UID == n.UID && revision(n.ResourceVersion) < revision(was.ResourceVersion)
		return n, !stale
	})
}

// revision is a resource version as a number, so that two can be compared.
func revision(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// awaitNode waits until this node's Node is there.
func (m *Manager) awaitNode(ctx context.Context) (*Node, error) {
	return m.awaitOwn(ctx, func(*Node) error { return nil })
}

// awaitUsable waits until this node's Node is there and has subnets that can
// be used.
func (m *Manager) awaitUsable(ctx context.Context) (*Node, ipfam.Pair[netip.Prefix], error) {
	var have ipfam.Pair[netip.Prefix]
	n, err := m.awaitOwn(ctx, func(n *Node) (err error) {
		have, err = ownSubnets(n, m.network())
		return err
	})
	return n, have, err
}

// awaitOwn waits until the Node is there and check finds nothing wrong.
func (m *Manager) awaitOwn(ctx context.Context, check func(*Node) error) (*Node, error) {
	return m.own.await(ctx, func(n *Node) bool { return m.sayOwn(ctx, n, check) })
}

// sayOwn says what is wrong with the own Node, and reports whether all is well.
func (m *Manager) sayOwn(ctx context.Context, n *Node, check func(*Node) error) bool {
	if n == nil {
		name, _, _ := m.name.get()
		m.voice.say(topicOwn, notFound(name, m.names(ctx)))
		return false
	}
	err := check(n)
	if m.voice.say(topicOwn, err) && err != nil {
		m.tell(n, err)
	}
	return err == nil
}

// names lists all Nodes, to find those that may have been meant. Without an
// answer there are none.
func (m *Manager) names(ctx context.Context) []string {
	var names []string
	err := m.gate.do(ctx, func(ctx context.Context) error {
		names = nil
		return m.client.listAll(ctx, func(n *Node) { names = append(names, n.Name) })
	})
	if err != nil && !apierrors.IsForbidden(err) {
		m.log.Debug("names of the Nodes not read", "err", err)
	}
	return names
}
