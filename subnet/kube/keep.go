package kube

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"flannel/internal/ipfam"
	"flannel/internal/loop"
	"flannel/subnet"
)

// quietAfter is for how long nobody else must change our annotations for
// contention to be over.
const quietAfter = 5 * time.Minute

// Keep implements subnet.Manager: it restores annotations that somebody has
// removed or changed. It returns nil when the lease is to be acquired again
// because what is to be published has changed. A Node's lease has no end.
func (m *Manager) Keep(ctx context.Context, own subnet.Lease, update func(subnet.Lease)) error {
	k := keeper{
		m: m, own: own, update: update, backoff: newBackoff(),
		contention: loop.Contention{Gap: time.Second, Quiet: quietAfter},
	}
	defer k.endContention()
	for {
		n, known, changed := m.own.get()
		var again time.Time
		if known {
			var done bool
			var err error
			if done, again, err = k.check(ctx, n); done || err != nil {
				return err
			}
		}
		if again.IsZero() && k.contention.Active() {
			again = k.contention.QuietAt()
		}
		var timeout <-chan time.Time
		if !again.IsZero() {
			timeout = time.After(time.Until(again))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-timeout:
		}
	}
}

// keeper is the state of Keep.
type keeper struct {
	m          *Manager
	own        subnet.Lease
	update     func(subnet.Lease)
	contention loop.Contention
	backoff    *loop.Backoff
}

// check restores the annotations of our Node if they differ. It reports whether
// the lease is to be acquired again, or when to check again; zero means only when
// the Node changes.
func (k *keeper) check(ctx context.Context, n *Node) (done bool, again time.Time, err error) {
	m := k.m
	have, usable := m.usableSubnets(ctx, n)
	switch {
	case ctx.Err() != nil:
		return false, again, ctx.Err()
	case !usable:
		return false, again, nil // the data path stays as it is
	case have != k.own.Subnet:
		return false, again, fmt.Errorf("%w: Node %q has %s", subnet.ErrLeaseLost, n.Name, ipfam.Join(have))
	}
	if p := precedence(n); p != k.own.Precedence {
		k.own.Precedence = p
		k.update(k.own)
	}
	if asked := m.asked.Load(); asked != nil && m.overwrite(n, *asked) != k.own.Attrs {
		return true, again, nil
	}
	now := time.Now()
	if k.contention.Active() && !now.Before(k.contention.QuietAt()) {
		k.endContention()
	}
	if matches(n.Annotations, m.keys.encode(k.own.Attrs)) {
		return false, again, nil
	}
	if due := k.contention.Next(); now.Before(due) {
		return false, due, nil
	}
	return false, k.restore(ctx, n), ctx.Err()
}

// restore publishes the lease again. It returns when to try again if that has
// failed.
func (k *keeper) restore(ctx context.Context, n *Node) (again time.Time) {
	err := k.m.publish(ctx, n, k.own.Attrs)
	if err != nil {
		// Another state of the Node comes by the watch.
		if ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			k.m.conditions.Set(condPublish, err)
		}
		return time.Now().Add(k.backoff.Next())
	}
	k.m.conditions.Set(condPublish, nil)
	k.backoff.Reset()
	if k.contention.Restored(time.Now()) {
		k.beginContention(n)
	} else if !k.contention.Active() {
		k.m.log.Warn("annotations of our Node were removed or changed, restored", "node", n.Name)
	}
	return time.Time{}
}

func (k *keeper) beginContention(n *Node) {
	err := &causeError{reason: "AnnotationsChanged", text: fmt.Sprintf("something else changes the annotations %s* of Node %q again and again; "+
		"they are restored less and less often; see: kubectl get node %s -o yaml --show-managed-fields", k.m.keys.prefix, n.Name, n.Name)}
	k.m.log.Warn("contention for the annotations of our Node", "err", err)
	k.m.o.Conflict(err)
	k.m.notify(err)
}

func (k *keeper) endContention() {
	if k.contention.Reset() {
		k.m.o.Conflict(nil)
	}
}
