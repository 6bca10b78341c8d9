package kube

import (
	"context"
	"errors"
	"net/netip"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"flannel/internal/ipfam"
)

// followOwn finds the name of our Node and follows it.
func (m *Manager) followOwn(ctx context.Context) error {
	name, err := m.findName(ctx)
	if err != nil {
		return err
	}
	m.name.Store(&name)
	return m.follow(ctx, condOwn, "metadata.name="+name, ownNode{m})
}

func (m *Manager) findName(ctx context.Context) (string, error) {
	n := chooseName(m.o.Getenv, m.o.Hostname)
	if n.name != "" {
		return n.name, nil
	}
	err := m.repeat(ctx, condName, func() error {
		err := m.try(ctx, condName, rule{"get", "pods"}, func(ctx context.Context) (err error) {
			n.name, err = m.client.nodeOfPod(ctx, n.namespace, n.pod)
			return err
		})
		if err == nil && n.name == "" {
			err = errors.New("the pod is not on a node yet")
		}
		if err != nil {
			return n.unknown(err)
		}
		return nil
	})
	return n.name, err
}

// ownNode follows our Node.
type ownNode struct{ m *Manager }

func (o ownNode) put(n *Node) { o.m.observe(n) }

func (o ownNode) remove(*Node) { o.m.own.set(nil) }

func (o ownNode) replace(nodes []*Node, _ string) {
	if len(nodes) == 0 {
		o.m.own.set(nil)
		return
	}
	o.m.own.set(nodes[0])
}

func (o ownNode) advance(string) {}

// observe takes a state of our Node, unless a later one is known: the answer to
// a patch may overtake the watch.
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

// node returns our Node, nil if there is none or it is not known yet.
func (m *Manager) node() *Node {
	n, _, _ := m.own.get()
	return n
}

// Identity is the UID of our Node: it changes when the Node is created again. It
// is empty before the first answer.
func (m *Manager) Identity() string {
	if n := m.node(); n != nil {
		return string(n.UID)
	}
	return ""
}

// awaitNode waits until our Node exists.
func (m *Manager) awaitNode(ctx context.Context) (*Node, error) {
	return m.awaitOwn(ctx, func(*Node) error { return nil })
}

// usableSubnets returns the subnets of our Node, or reports why they cannot be
// used.
func (m *Manager) usableSubnets(ctx context.Context, n *Node) (have ipfam.Pair[netip.Prefix], ok bool) {
	ok = m.checkOwn(ctx, n, func(n *Node) (err error) {
		have, err = ownSubnets(n, m.network())
		return err
	})
	return have, ok
}

// awaitOwn waits until our Node exists and check returns no error.
func (m *Manager) awaitOwn(ctx context.Context, check func(*Node) error) (*Node, error) {
	return m.own.await(ctx, func(n *Node) bool { return m.checkOwn(ctx, n, check) })
}

// checkOwn reports whether our Node exists and check returns no error. Otherwise
// the cause becomes known as what is waited for.
func (m *Manager) checkOwn(ctx context.Context, n *Node, check func(*Node) error) bool {
	if n == nil {
		name := *m.name.Load() // before our Node is looked for
		m.conditions.Set(condOwn, notFound(name, m.names(ctx)))
		return false
	}
	err := check(n)
	if m.conditions.Set(condOwn, err) {
		m.notify(err)
	}
	return err == nil
}

// names returns the names of all Nodes, to find those that may have been meant;
// none if the server does not answer.
func (m *Manager) names(ctx context.Context) []string {
	var names []string
	err := m.breaker.do(ctx, func(ctx context.Context) error {
		names = nil
		return m.client.listAll(ctx, func(n *Node) { names = append(names, n.Name) })
	})
	if err != nil && !apierrors.IsForbidden(err) {
		m.log.Debug("names of the Nodes not listed", "err", err)
	}
	return names
}
