package kube

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/internal/health"
	"flannel/internal/ipfam"
	"flannel/internal/loop"
	"flannel/subnet"
)

// Watch implements subnet.Manager.
func (m *Manager) Watch(ctx context.Context, set func(subnet.Snapshot)) error {
	p := newPeers(m.keys, m.families(), m.o.Grace)
	p.loop = m.o.AddLoop("leases")
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.follow(ctx, condPeers, "", p) })
	group.Go(func() error { return p.notify(ctx, set) })
	return group.Wait()
}

// peers are the leases that the Nodes stand for.
type peers struct {
	keys     annotations
	families ipfam.Pair[bool]
	grace    time.Duration
	changed  loop.Signal
	// loop is told what notify does.
	loop *health.Loop

	mu sync.Mutex
	// known is false until the first complete list.
	known bool
	all   map[string]peer
	epoch uint64
	// version is the latest resource version seen.
	version uint64
}

type peer struct {
	// lease is never changed: others may have it.
	lease *subnet.Lease
	// until is the end of the grace period of a peer some or all of whose
	// annotations are gone; zero for others. rest is then what the Node still
	// publishes, nil if it takes no part.
	until time.Time
	rest  *subnet.Lease
}

func newPeers(keys annotations, families ipfam.Pair[bool], grace time.Duration) *peers {
	return &peers{keys: keys, families: families, grace: grace, changed: loop.NewSignal(), all: map[string]peer{}}
}

// put implements follower.
func (p *peers) put(n *Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was, had := p.all[n.Name]
	next, has := p.next(was, had, n, time.Now())
	switch {
	case has && (!had || next.rest != nil || next.until != was.until || !next.lease.Equal(*was.lease)):
		p.all[n.Name] = next
	case had && !has:
		delete(p.all, n.Name)
	default:
		return
	}
	p.changed.Send()
}

// remove implements follower.
func (p *peers) remove(n *Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, had := p.all[n.Name]; had {
		delete(p.all, n.Name)
		p.changed.Send()
	}
}

// replace implements follower. Nodes that are older than those before come from
// a store that was restored.
func (p *peers) replace(nodes []*Node, version string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string]peer, len(nodes))
	now := time.Now()
	for _, n := range nodes {
		was, had := p.all[n.Name]
		if next, has := p.next(was, had, n, now); has {
			all[n.Name] = next
		}
	}
	rev := revision(version)
	if rev < p.version {
		p.epoch++
	}
	p.version = rev
	p.all, p.known = all, true
	p.changed.Send()
}

// advance implements follower.
func (p *peers) advance(version string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.version = max(p.version, revision(version))
}

// next returns what a Node makes of its peer, and whether there still is one.
// What was published before and is gone is kept for the grace period; what was
// replaced by something else is not gone.
func (p *peers) next(was peer, had bool, n *Node, now time.Time) (peer, bool) {
	is := peer{}
	if l, takesPart := decodeLease(n, &p.keys, p.families); takesPart {
		is.lease = &l
	}
	if !had || was.lease.Invalid != "" || is.lease != nil && is.lease.Invalid != "" || was.lease.Precedence.Age != precedence(n).Age {
		return is, is.lease != nil
	}
	attrs := was.lease.Attrs
	if is.lease != nil {
		var lost bool
		if attrs, lost = p.keys.restore(is.lease.Attrs, was.lease.Attrs, n.Annotations); !lost {
			return is, true
		}
	}
	if have, err := subnets(n, p.families); err != nil || have != was.lease.Subnet {
		return is, is.lease != nil
	}
	until := was.until
	if until.IsZero() {
		until = now.Add(p.grace)
	}
	if !now.Before(until) {
		return is, is.lease != nil
	}
	kept := *was.lease
	kept.Attrs, kept.Precedence.Grace = attrs, true
	return peer{lease: &kept, until: until, rest: is.lease}, true
}

// notify calls set with the complete set after each change, until ctx ends.
// Changes that come in the meantime become one set.
func (p *peers) notify(ctx context.Context, set func(subnet.Snapshot)) error {
	var last []*subnet.Lease
	notified := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.changed:
		case <-timer.C:
		}
		p.loop.Works()
		leases, epoch, end, known := p.snapshot(time.Now())
		if !end.IsZero() {
			timer.Reset(time.Until(end))
		}
		if known && !(notified && subnet.EqualLeases(last, leases)) {
			last, notified = leases, true
			set(subnet.Snapshot{Leases: leases, Epoch: epoch})
		}
		p.loop.Waits()
	}
}

// snapshot ends the grace periods that are over and returns the leases in the
// order of their names, and when the next grace period ends.
func (p *peers) snapshot(now time.Time) (leases []*subnet.Lease, epoch uint64, end time.Time, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	leases = make([]*subnet.Lease, 0, len(p.all))
	for name, each := range p.all {
		switch {
		case each.until.IsZero():
		case !now.Before(each.until) && each.rest == nil:
			delete(p.all, name)
			continue
		case !now.Before(each.until):
			each = peer{lease: each.rest}
			p.all[name] = each
		case end.IsZero() || each.until.Before(end):
			end = each.until
		}
		leases = append(leases, each.lease)
	}
	slices.SortFunc(leases, byName)
	return leases, p.epoch, end, p.known
}
