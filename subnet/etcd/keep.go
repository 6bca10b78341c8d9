package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/ipfam"
	"flannel/subnet"
	"flannel/subnet/alloc"
)

// Keep implements subnet.Manager.
func (m *Manager) Keep(ctx context.Context, own subnet.Lease, notify func(subnet.Lease)) error {
	changed, stop := m.watchKey(ctx, m.leaseKey(encodeName(own.Subnet)))
	defer stop()
	for {
		present, next, err := m.check(ctx, own)
		if err != nil {
			return err
		}
		if !present.Equal(own) || !present.Expires.Equal(own.Expires) {
			own = present
			notify(own)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-m.recheck:
		case <-time.After(next):
		}
	}
}

// check restores or renews our record if necessary. It returns the lease, and
// after how long to check again at the latest.
func (m *Manager) check(ctx context.Context, lease subnet.Lease) (subnet.Lease, time.Duration, error) {
	if err := m.writing.Acquire(ctx, 1); err != nil {
		return subnet.Lease{}, 0, err
	}
	defer m.writing.Release(1)
	own := m.ownRecord()
	if own == nil {
		own = &record{lease: lease, name: encodeName(lease.Subnet)}
	}
	if own.lease.Subnet != lease.Subnet {
		return subnet.Lease{}, 0, fmt.Errorf("%w: this node has %s", subnet.ErrLeaseLost, ipfam.Join(own.lease.Subnet))
	}
	own, err := m.settle(ctx, own, own.lease.Attrs)
	var later retryAt
	if errors.As(err, &later) {
		return lease, time.Until(later.at), nil
	}
	if err != nil {
		return subnet.Lease{}, 0, err
	}
	next := m.o.CheckEvery - rand.N(m.o.CheckEvery/10+1)
	if quiet := m.endIfQuiet(); !quiet.IsZero() {
		next = min(next, time.Until(quiet))
	}
	if own.etcdLease != clientv3.NoLease {
		next = min(next, max(0, time.Until(own.lease.Expires)-m.o.RenewMargin))
	}
	return own.lease, next, nil
}

// settle makes the record under our key what this node wants to publish, and
// remembers the outcome. The error is ErrLeaseLost if the subnet is another
// node's, and a retryAt if the record has to be restored, but not yet. The caller
// holds writing.
func (m *Manager) settle(ctx context.Context, own *record, want subnet.Attrs) (*record, error) {
	next, err := doRacing(ctx, m, func(ctx context.Context) (*record, error) { return m.trySettle(ctx, own, want) })
	switch {
	case err == nil:
		m.setOwnRecord(next)
		return next, nil
	case errors.Is(err, subnet.ErrLeaseLost):
		m.setOwnRecord(nil)
		m.endContention()
	}
	return nil, err
}

func (m *Manager) trySettle(ctx context.Context, known *record, want subnet.Attrs) (*record, error) {
	own, err := m.readOwn(ctx, known)
	if err != nil {
		return nil, err
	}
	if own == nil {
		return m.recreate(ctx, known, want)
	}
	node := m.self(want)
	whose, written := node.evidence(own), node.past.wrote(own.etcdLease)
	if whose == foreign {
		return nil, permanentError{fmt.Errorf("%w: %s is another node's", subnet.ErrLeaseLost, own.name)}
	}
	m.noteStore(known, own)
	due := own.etcdLease != clientv3.NoLease && time.Until(own.lease.Expires) <= m.o.RenewMargin
	if whose == blank {
		// Without an etcd lease it is no reservation, unless it was one.
		due = known.mod == 0 || known.etcdLease != clientv3.NoLease
	}
	current := whose != blank && own.lease.Attrs == want
	if !due && current {
		return own, m.verify(ctx, own, want)
	}
	// If an answer was lost, the change is ours.
	changed := known.mod != 0 && own.mod > known.mod && !(current && written)
	if changed {
		if whose != blank && own.etcdLease != clientv3.NoLease && !written {
			m.contention.Defer(time.Now().Add(m.deferral))
		}
		if err := mayRestore(m.contention.Next()); err != nil {
			return nil, err
		}
	}
	if err := m.verify(ctx, own, want); err != nil {
		return nil, err
	}
	next, err := m.put(ctx, own, want, due)
	switch {
	case err != nil:
		return nil, err
	case changed:
		m.noteRestored(next, conflict(want, own.lease))
	case due:
		m.log.Info("lease renewed", "subnet", ipfam.Join(next.lease.Subnet), "until", next.lease.Expires)
	}
	return next, nil
}

// readOwn reads our record, nil if there is none. In the same request it learns
// whether the store and the configuration are still the same.
func (m *Manager) readOwn(ctx context.Context, known *record) (*record, error) {
	_, answers, err := m.read(ctx, clientv3.OpGet(m.leaseKey(known.name)), clientv3.OpGet(m.configKey()))
	if err != nil {
		return nil, err
	}
	m.compareConfig(answers[1].Kvs)
	if len(answers[0].Kvs) == 0 {
		return nil, nil
	}
	own := readRecord(known.name, answers[0].Kvs[0])
	if own.etcdLease == known.etcdLease {
		own.lease.Expires = known.lease.Expires
	}
	return own, nil
}

// noteStore compares our record with what was last known of it. If it cannot
// have come after that, the store is another one.
func (m *Manager) noteStore(known, own *record) {
	if known.mod == 0 || own.equal(known) {
		return
	}
	if own.mod <= known.mod {
		m.otherStore()
	}
	if own.mod <= known.mod || own.lease.Precedence != known.lease.Precedence {
		m.listAgain()
	}
}

// recreate publishes the same subnet again after our key was deleted. Other
// records of this node are deleted in the same transaction: the other nodes would
// use an older one, be it for a moment.
func (m *Manager) recreate(ctx context.Context, known *record, want subnet.Attrs) (*record, error) {
	if err := mayRestore(m.contention.NextUrgent(longestGone)); err != nil {
		return nil, err
	}
	m.listAgain() // the store may have lost more than this key
	s, err := m.readAll(ctx)
	if err != nil {
		return nil, err
	}
	duplicates := s.duplicates(known, m.self(want), m.pools())
	created, err := m.create(ctx, known.lease.Subnet, want, duplicates)
	switch {
	case errors.Is(err, errKeyExists):
		return nil, permanentError{errRaced}
	case errors.Is(err, errTaken):
		return nil, permanentError{fmt.Errorf("%w: %s was taken after it was deleted", subnet.ErrLeaseLost, known.name)}
	case err != nil:
		return nil, err
	}
	m.logDuplicates(created, duplicates)
	m.noteRestored(created, errDeleted)
	return created, m.verify(ctx, created, want)
}

// verify looks, once for each record and epoch, whether our record has to give
// way to another one; then the error is ErrLeaseLost. Records of this node that
// came back with an older state of the store are deleted.
func (m *Manager) verify(ctx context.Context, own *record, want subnet.Attrs) error {
	if m.checkedEpoch == m.epoch.Load() && m.checkedRecord == own.lease.Precedence {
		return nil
	}
	_, err := m.standAlone(ctx, own, want, m.pools(), &snapshot{})
	if errors.Is(err, errTaken) {
		return permanentError{fmt.Errorf("%w: another lease overlaps %s", subnet.ErrLeaseLost, own.name)}
	}
	return err
}

// pools returns those of the configuration in use; none if there is none.
func (m *Manager) pools() alloc.Pools {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.config == nil {
		return alloc.Pools{}
	}
	return alloc.Of(m.config)
}
