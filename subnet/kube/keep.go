package kube

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// Keep implements subnet.Manager: it publishes again what was wiped or changed
// by somebody. It returns nil when the lease is to be acquired again because
// what is to be published has changed. A Node's lease has no end.
func (m *Manager) Keep(ctx context.Context, own subnet.Lease, tell func(subnet.Lease)) error {
	k := keeper{m: m, own: own, tell: tell, retry: newRetry()}
	defer k.makePeace()
	for {
		n, known, changed := m.own.get()
		again := time.Duration(0)
		if known {
			var done bool
			var err error
			if done, again, err = k.check(ctx, n); done || err != nil {
				return err
			}
		}
		if err := k.pause(ctx, again, changed); err != nil {
			return err
		}
	}
}

// keeper is what Keep remembers.
type keeper struct {
	m     *Manager
	own   subnet.Lease
	tell  func(subnet.Lease)
	fight fight
	retry *retry
}

// pause waits until the next check: until the Node changes, the time to check
// again has come, or a fight has ended.
func (k *keeper) pause(ctx context.Context, again time.Duration, changed <-chan struct{}) error {
	var timeout, peace <-chan time.Time
	if again > 0 {
		timer := time.NewTimer(again)
		defer timer.Stop()
		timeout = timer.C
	} else if k.fight.said {
		timer := time.NewTimer(time.Until(k.fight.last.Add(peaceAfter)))
		defer timer.Stop()
		peace = timer.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
	case <-timeout:
	case <-peace:
		k.makePeace()
	}
	return nil
}

func (k *keeper) makePeace() {
	if k.fight.said {
		k.m.o.Conflict(nil)
	}
	k.fight = fight{}
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
	if c := claim(n); c != k.own.Precedence {
		k.own.Precedence = c
		k.tell(k.own)
	}
	if asked := m.asked.Load(); asked != nil && !m.overwrite(n, *asked).Equal(k.own.Attrs) {
		return true, 0, nil
	}
	if says(n.Annotations, m.keys.encode(k.own.Attrs)) {
		return false, 0, nil
	}
	pause, said := k.fight.round(time.Now())
	if said {
		k.sayFight(n)
	}
	if pause > 0 {
		return false, pause, nil
	}
	return k.publish(ctx, n)
}

func (k *keeper) sayFight(n *Node) {
	err := &causeError{reason: "AnnotationsChanged", text: fmt.Sprintf("somebody else changes the annotations %s* of Node %q again and again; "+
		"they are written more rarely; see: kubectl get node %s -o yaml --show-managed-fields", k.m.keys.prefix, n.Name, n.Name)}
	k.m.log.Warn("fight over the annotations of the own Node", "err", err)
	k.m.o.Conflict(err)
	k.m.tell(n, err)
}

func (k *keeper) publish(ctx context.Context, n *Node) (done bool, wait time.Duration, err error) {
	err = k.m.publish(ctx, n, k.own.Attrs)
	switch {
	case err == nil:
		k.retry = newRetry()
		k.m.voice.say(topicPublish, nil)
		if k.fight.rounds == 1 {
			k.m.log.Warn("own annotations were gone or changed, published again", "node", n.Name)
		}
		return false, 0, nil
	case ctx.Err() != nil:
		return false, 0, ctx.Err()
	case !apierrors.IsConflict(err) && !apierrors.IsNotFound(err):
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
