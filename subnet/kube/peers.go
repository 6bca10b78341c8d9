package kube

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// Watch implements subnet.Manager.
func (m *Manager) Watch(ctx context.Context, set func(subnet.Snapshot)) error {
	ctx = klog.NewContext(ctx, quietLogger(m.log))
	p := newPeers(m.keys, m.families(), m.o.Grace)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.follow(ctx, "nodes", topicPeers, "", p) })
	group.Go(func() error { return p.tell(ctx, set) })
	return group.Wait()
}

// peers turns the Nodes that a reflector finds into leases.
type peers struct {
	keys     annotations
	families ipfam.Pair[bool]
	grace    time.Duration
	// changed asks tell to look.
	changed chan struct{}

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
	// until is when the grace time ends of a peer some or all of whose
	// annotations are gone; zero for others. rest is then what the Node still
	// says, nil when it takes no part.
	until time.Time
	rest  *subnet.Lease
}

var (
	_ cache.TransformingStore      = (*peers)(nil)
	_ cache.ResourceVersionUpdater = (*peers)(nil)
)

func newPeers(keys annotations, families ipfam.Pair[bool], grace time.Duration) *peers {
	return &peers{keys: keys, families: families, grace: grace, changed: make(chan struct{}, 1), all: map[string]peer{}}
}

// Transformer drops what no lease is made of.
func (p *peers) Transformer() cache.TransformFunc { return stripped(p.keys.prefix) }

// Add implements cache.ReflectorStore.
func (p *peers) Add(obj any) error { return p.Update(obj) }

// Update implements cache.ReflectorStore.
func (p *peers) Update(obj any) error {
	n, err := asNode(obj)
	if err != nil {
		return err
	}
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
		return nil
	}
	p.wake()
	return nil
}

// Delete implements cache.ReflectorStore.
func (p *peers) Delete(obj any) error {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	n, err := asNode(obj)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, had := p.all[n.Name]; had {
		delete(p.all, n.Name)
		p.wake()
	}
	return nil
}

// Replace implements cache.ReflectorStore. A list that is older than the one
// before comes from a store that was restored.
func (p *peers) Replace(list []any, version string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string]peer, len(list))
	now := time.Now()
	for _, obj := range list {
		n, err := asNode(obj)
		if err != nil {
			return err
		}
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
	p.wake()
	return nil
}

// UpdateResourceVersion implements cache.ResourceVersionUpdater.
func (p *peers) UpdateResourceVersion(version string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.version = max(p.version, revision(version))
}

// Resync implements cache.ReflectorStore.
func (p *peers) Resync() error { return nil }

func (p *peers) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// next returns what a Node makes of its peer, and whether there still is one.
// What was published before and is gone is kept for a while; what was replaced
// by something else is not gone.
func (p *peers) next(was peer, had bool, n *Node, now time.Time) (peer, bool) {
	is := peer{}
	if l, takesPart := decodeLease(n, &p.keys, p.families); takesPart {
		is.lease = &l
	}
	if !had || was.lease.Invalid != "" || is.lease != nil && is.lease.Invalid != "" || was.lease.Precedence.Age != claim(n).Age {
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

// tell calls set with the complete set after each change, until ctx ends.
// Changes that come while it works become one set.
func (p *peers) tell(ctx context.Context, set func(subnet.Snapshot)) error {
	var last []*subnet.Lease
	told := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.changed:
		case <-timer.C:
		}
		leases, epoch, end, known := p.snapshot(time.Now())
		if !end.IsZero() {
			timer.Reset(time.Until(end))
		}
		if known && !(told && subnet.EqualLeases(last, leases)) {
			last, told = leases, true
			set(subnet.Snapshot{Leases: leases, Epoch: epoch})
		}
	}
}

// snapshot drops what was kept and whose grace time is over and returns the rest in
// the order of their names, and when the next grace time ends.
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
	slices.SortFunc(leases, func(a, b *subnet.Lease) int { return strings.Compare(a.Name, b.Name) })
	return leases, p.epoch, end, p.known
}
