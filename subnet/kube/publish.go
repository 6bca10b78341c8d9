package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// Acquire implements subnet.Manager. The cluster chooses the subnets; an
// earlier run's do not matter.
func (m *Manager) Acquire(ctx context.Context, a subnet.Attrs, _ ipfam.Pair[netip.Prefix]) (subnet.Lease, error) {
	m.asked.Store(&a)
	for retry := newRetry(); ; {
		n, have, err := m.awaitUsable(ctx)
		if err != nil {
			return subnet.Lease{}, err
		}
		want := m.overwrite(n, a)
		err = m.publish(ctx, n, want)
		if err == nil {
			m.voice.say(topicPublish, nil)
			return subnet.Lease{Name: n.Name, Subnet: have, Attrs: want, Claim: claim(n)}, nil
		}
		if ctx.Err() != nil {
			return subnet.Lease{}, ctx.Err()
		}
		m.sayPublish(n, err)
		if err := retry.wait(ctx); err != nil {
			return subnet.Lease{}, err
		}
	}
}

func (m *Manager) sayPublish(n *Node, err error) {
	m.voice.say(topicPublish, fmt.Errorf("annotations of Node %q not written: %w; see: kubectl get node %s -o yaml", n.Name, plain(err), n.Name))
}

// overwrite replaces public addresses by those that an operator has set on the
// Node.
func (m *Manager) overwrite(n *Node, a subnet.Attrs) subnet.Attrs {
	addrs, problems := m.keys.addresses(m.keys.overwrite, n.Annotations)
	m.sayOdd("overwritten public address", problems)
	for f, addr := range ipfam.Addrs(addrs) {
		if a.PublicIP[f].IsValid() {
			a.PublicIP[f] = addr
		}
	}
	return a
}

// publish makes a Node say a, if it does not.
func (m *Manager) publish(ctx context.Context, n *Node, a subnet.Attrs) error {
	want := m.keys.encode(a)
	if says(n.Annotations, want) {
		return nil
	}
	var patch mergePatch
	patch.Metadata.UID = string(n.UID)
	patch.Metadata.Annotations = m.keys.patch(n.Annotations, want)
	var result *Node
	err := m.try(ctx, topicPublish, rule{"patch", "nodes/status"}, func(ctx context.Context) (err error) {
		result, err = m.client.patchStatus(ctx, n.Name, patch)
		return err
	})
	if err != nil {
		return err
	}
	result.strip(m.keys.prefix)
	m.observe(result)
	return nil
}

// Keep implements subnet.Manager: it publishes again what was wiped or changed
// by somebody. It returns nil when the lease is to be acquired again because
// what is to be published has changed. A Node's lease has no end, and its claim
// stays, so there is nothing to tell.
func (m *Manager) Keep(ctx context.Context, own subnet.Lease, _ func(subnet.Lease)) error {
	k := keeper{m: m, own: own, retry: newRetry()}
	for {
		n, known, changed := m.own.get()
		if known {
			done, wait, err := k.check(ctx, n)
			if done || err != nil {
				return err
			}
			if wait > 0 {
				if err := sleep(ctx, wait); err != nil {
					return err
				}
				continue
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// keeper is what Keep remembers.
type keeper struct {
	m     *Manager
	own   subnet.Lease
	fight fight
	retry *retry
}

// check puts the Node right. It reports whether the lease is to be acquired
// again, or how long to wait before the next check.
func (k *keeper) check(ctx context.Context, n *Node) (done bool, wait time.Duration, err error) {
	m := k.m
	var have ipfam.Pair[netip.Prefix]
	usable := m.sayOwn(ctx, n, func(n *Node) (err error) {
		have, err = ownSubnets(n, m.network())
		return err
	})
	switch {
	case ctx.Err() != nil:
		return false, 0, ctx.Err()
	case !usable:
		return false, 0, nil // the data path stays as it is
	case have != k.own.Subnet:
		return false, 0, fmt.Errorf("%w: Node %q has %s", subnet.ErrLeaseLost, n.Name, subnet.Join(have))
	}
	if asked := m.asked.Load(); asked != nil && !m.overwrite(n, *asked).Equal(k.own.Attrs) {
		return true, 0, nil
	}
	if says(n.Annotations, m.keys.encode(k.own.Attrs)) {
		return false, 0, nil
	}
	pause, said := k.fight.round(time.Now())
	if said {
		err := &causeError{reason: "AnnotationsChanged", text: fmt.Sprintf("somebody else changes the annotations %s* of Node %q again and again; "+
			"they are written more rarely; see: kubectl get node %s -o yaml --show-managed-fields", m.keys.prefix, n.Name, n.Name)}
		m.log.Warn("fight over the annotations of the own Node", "err", err)
		m.tell(n, err)
	}
	if pause > 0 {
		return false, pause, nil
	}
	return k.publish(ctx, n)
}

func (k *keeper) publish(ctx context.Context, n *Node) (done bool, wait time.Duration, err error) {
	err = k.m.publish(ctx, n, k.own.Attrs)
	switch {
	case err == nil:
		k.retry = newRetry()
		k.m.voice.say(topicPublish, nil)
		k.m.log.Warn("own annotations were gone or changed, published again", "node", n.Name)
		return false, 0, nil
	case ctx.Err() != nil:
		return false, 0, ctx.Err()
	case !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) || errors.Is(err, context.DeadlineExceeded):
		k.m.sayPublish(n, err)
	}
	return false, k.retry.next(), nil
}

// fight notices that annotations which were published again are changed again,
// and slows down. The zero fight is peace.
type fight struct {
	// rounds is how often they were published again in a row.
	rounds int
	last   time.Time
	due    time.Time
	said   bool
}

const (
	peaceAfter   = 5 * time.Minute
	quickRounds  = 3
	longestPause = time.Minute
)

// round is called when the annotations are wrong. It returns how long to leave
// them so, zero when they are to be published at once; said is true once per
// fight.
func (f *fight) round(now time.Time) (pause time.Duration, said bool) {
	if now.Sub(f.last) > peaceAfter {
		*f = fight{}
	}
	if now.Before(f.due) {
		return f.due.Sub(now), false
	}
	f.rounds++
	f.last = now
	if f.rounds < quickRounds {
		f.due = now.Add(time.Second)
		return 0, false
	}
	f.due = now.Add(min(longestPause, time.Second<<min(f.rounds-quickRounds+1, 6)))
	said = !f.said
	f.said = true
	return 0, said
}
