package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/wait"
	"flannel/subnet"
	"flannel/subnet/alloc"
)

// Keep implements subnet.Manager.
func (m *Manager) Keep(ctx context.Context, own subnet.Lease, tell func(subnet.Lease)) error {
	watching, cancel := context.WithCancel(ctx)
	changed := newKick()
	var group sync.WaitGroup
	group.Go(func() { _ = m.notice(watching, m.leaseKey(encodeName(own.Subnet)), changed.give) }) // ends with watching
	defer group.Wait()
	defer cancel()
	for {
		present, next, err := m.check(ctx, own)
		if err != nil {
			return err
		}
		if !present.Equal(own) || !present.Expires.Equal(own.Expires) {
			own = present
			tell(own)
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-changed:
			timer.Stop()
		case <-m.recheck:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// check puts the own record right. It returns the lease, and when to look again
// at the latest.
func (m *Manager) check(ctx context.Context, lease subnet.Lease) (subnet.Lease, time.Duration, error) {
	if err := m.lock(ctx); err != nil {
		return subnet.Lease{}, 0, err
	}
	defer m.unlock()
	own, have := m.currentOwn()
	if !have {
		own = held{lease: lease}
	}
	if own.lease.Subnet != lease.Subnet {
		return subnet.Lease{}, 0, fmt.Errorf("%w: this node has %s", subnet.ErrLeaseLost, subnet.Join(own.lease.Subnet))
	}
	own, err := m.settle(ctx, own, own.lease.Attrs)
	var wait later
	if errors.As(err, &wait) {
		return lease, time.Until(wait.until), nil
	}
	if err != nil {
		return subnet.Lease{}, 0, err
	}
	next := m.o.CheckEvery - rand.N(m.o.CheckEvery/10+1)
	if quiet := m.leftAlone(); !quiet.IsZero() {
		next = min(next, time.Until(quiet))
	}
	if own.etcdLease != clientv3.NoLease {
		next = min(next, max(0, time.Until(own.lease.Expires)-m.o.RenewMargin))
	}
	return own.lease, next, nil
}

// settle makes the store say what this node wants to say under its own key,
// and remembers the outcome. It returns ErrLeaseLost when the subnet is
// another node's, and a later when the record has to be put right, but not yet.
// The caller holds the lock.
func (m *Manager) settle(ctx context.Context, own held, want subnet.Attrs) (held, error) {
	for {
		next := own
		err := m.do(ctx, func(ctx context.Context) (err error) {
			next, err = m.trySettle(ctx, own, want)
			return err
		})
		switch {
		case err == nil:
			m.setOwn(&next)
			return next, nil
		case errors.Is(err, errRaced):
			if err := wait.For(ctx, rand.N(maxRaceDelay)); err != nil {
				return held{}, err
			}
		case errors.Is(err, subnet.ErrLeaseLost):
			m.setOwn(nil)
			m.endDispute()
			return held{}, err
		default:
			return held{}, err
		}
	}
}

func (m *Manager) trySettle(ctx context.Context, own held, want subnet.Attrs) (held, error) {
	kv, err := m.readOwn(ctx, own.name())
	if err != nil {
		return held{}, err
	}
	if kv == nil {
		return m.recreate(ctx, own, want)
	}
	l, st := readRecord(own.name(), kv)
	past := m.published().at(own.name())
	what := classify(l, st.etcdLease, want, past)
	if what == anothers {
		return held{}, final{fmt.Errorf("%w: %s is another node's", subnet.ErrLeaseLost, own.name())}
	}
	before := own
	own = m.adopt(before, l, st)
	due := own.etcdLease != clientv3.NoLease && time.Until(own.lease.Expires) <= m.o.RenewMargin
	if what == nobodys {
		// Without an etcd lease it is no reservation, unless it was one.
		due = before.mod == 0 || before.etcdLease != clientv3.NoLease
	}
	if !due && what == current {
		return m.verify(ctx, own, want)
	}
	// An answer that was lost shows our own change.
	changed := before.mod != 0 && st.mod > before.mod && !(what == current && past.wrote(st.etcdLease))
	if changed {
		if what != nobodys && st.etcdLease != clientv3.NoLease && !past.wrote(st.etcdLease) {
			m.dispute.notice(time.Now())
		}
		if err := m.mayAnswer(false); err != nil {
			return held{}, err
		}
	}
	if own, err = m.verify(ctx, own, want); err != nil {
		return held{}, err
	}
	next, err := m.put(ctx, own, want, due)
	switch {
	case err != nil:
		return held{}, err
	case changed:
		m.answered(next, disagreement(want, own.lease))
	case due:
		m.log.Info("lease renewed", "subnet", subnet.Join(next.lease.Subnet), "until", next.lease.Expires)
	}
	return next, nil
}

// readOwn reads a record, nil when there is none. In the same request it
// learns whether the store and the configuration are still the same.
func (m *Manager) readOwn(ctx context.Context, name string) (*mvccpb.KeyValue, error) {
	floor := m.version.floor()
	resp, err := m.kv.Txn(ctx).Then(clientv3.OpGet(m.leaseKey(name)), clientv3.OpGet(m.configKey())).Commit()
	if err != nil {
		return nil, err
	}
	m.observe(resp.Header, floor)
	m.compareConfig(resp.Responses[1].GetResponseRange().Kvs)
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		return kvs[0], nil
	}
	return nil, nil
}

// adopt returns our lease as the store holds it. When that cannot have come
// after what was seen last, the store is another one.
func (m *Manager) adopt(own held, l *subnet.Lease, st stored) held {
	next := held{lease: *l, mod: st.mod, etcdLease: st.etcdLease}
	if st.etcdLease == own.etcdLease {
		next.lease.Expires = own.lease.Expires
	}
	if l.Precedence == own.lease.Precedence {
		next.alone = own.alone
	}
	if own.mod == 0 || st == (stored{own.name(), own.mod, own.etcdLease}) && l.Equal(own.lease) {
		return next
	}
	if st.mod <= own.mod {
		m.otherStore()
	}
	if st.mod <= own.mod || l.Precedence != own.lease.Precedence {
		m.listAgain()
	}
	return next
}

// recreate publishes the same subnet again after the own key was deleted. What
// else there is of this node goes in the same transaction: the other nodes
// would believe an older record, be it for a moment.
func (m *Manager) recreate(ctx context.Context, own held, want subnet.Attrs) (held, error) {
	if err := m.mayAnswer(true); err != nil {
		return held{}, err
	}
	m.listAgain() // the store may have lost more than this key
	s, err := m.readAll(ctx)
	if err != nil {
		return held{}, err
	}
	twins := s.twins(own, want, m.published(), m.pools())
	created, ok, taken, err := m.create(ctx, own.lease.Subnet, want, s.heldAll(twins))
	switch {
	case err != nil:
		return held{}, err
	case taken:
		return held{}, final{errRaced}
	case !ok:
		return held{}, final{fmt.Errorf("%w: %s was taken after it was deleted", subnet.ErrLeaseLost, own.name())}
	}
	m.sayTwins(s, created, twins)
	m.answered(created, errDeleted)
	return m.verify(ctx, created, want)
}

// verify looks, once for each record and store, whether another record has a
// better claim to the subnet; then it returns ErrLeaseLost. Records of this node
// that came back with an older state of the store go.
func (m *Manager) verify(ctx context.Context, own held, want subnet.Attrs) (held, error) {
	stores := m.stores()
	if own.alone == stores {
		return own, nil
	}
	s, err := m.readAll(ctx)
	if err != nil {
		return held{}, err
	}
	yielded, err := m.standAlone(ctx, s, own, want, m.pools())
	switch {
	case err != nil:
		return held{}, err
	case yielded:
		return held{}, final{fmt.Errorf("%w: another lease overlaps %s", subnet.ErrLeaseLost, own.name())}
	}
	own.alone = stores
	return own, nil
}

// pools returns those of the configuration in use; none when there is none.
func (m *Manager) pools() alloc.Pools {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.config == nil {
		return alloc.Pools{}
	}
	return alloc.Of(m.config)
}
