package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// ownRecord returns this node's record as it was last seen in the store, nil if
// the node has none. It is never changed.
func (m *Manager) ownRecord() *record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.own
}

func (m *Manager) setOwnRecord(own *record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.own = own
}

// publishedDocument is the name of published in the state folder.
const publishedDocument = "published"

// remember notes what is about to be published under this node's key.
func (m *Manager) remember(name string, a subnet.Attrs, etcdLease clientv3.LeaseID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	past, changed := m.past.with(name, a, etcdLease)
	if !changed {
		return
	}
	m.past = past
	m.saving.Fail("writing to the state folder", m.o.State.Save(publishedDocument, past))
}

// recall reads what an earlier run has published.
func (m *Manager) recall() {
	var past published
	err := m.o.State.Load(publishedDocument, &past)
	if err == nil {
		_, err = decodeName(past.Name)
	}
	switch {
	case err == nil:
		m.past = past
	case !errors.Is(err, fs.ErrNotExist):
		m.log.Warn("what this node has published before is not known", "err", err)
	}
}

// confirm forgets what an earlier run has published unless that was this node.
func (m *Manager) confirm(public ipfam.Pair[netip.Addr], prev ipfam.Pair[netip.Prefix]) published {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.past = m.past.confirmed(public, prev)
	return m.past
}

// self is this node as it wants to publish itself.
func (m *Manager) self(want subnet.Attrs) self { return self{want: want, past: m.published()} }

func (m *Manager) published() published {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.past
}

// errTaken is the error of create if there is a key with the same first subnet,
// errKeyExists if it is the very key.
var (
	errTaken     = errors.New("the subnet is taken")
	errKeyExists = fmt.Errorf("%w under the same key", errTaken)
)

// create publishes a lease of a subnet that nobody else has, in place of other
// records of this node.
func (m *Manager) create(ctx context.Context, subnets ipfam.Pair[netip.Prefix], a subnet.Attrs, replaced []*record) (*record, error) {
	value, err := encodeValue(a)
	if err != nil {
		return nil, permanentError{err}
	}
	id, expires, err := m.grant(ctx)
	if err != nil {
		return nil, err
	}
	name := encodeName(subnets)
	m.remember(name, a, id)
	m.beforeCreate(subnets)
	key, first := m.leaseKey(name), m.leaseKey(firstSubnet(subnets))
	onlyIf := []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(first), "=", 0).WithPrefix()}
	ops := []clientv3.Op{clientv3.OpPut(key, string(value), clientv3.WithLease(id))}
	for _, r := range replaced {
		onlyIf = append(onlyIf, m.unchanged(r))
		ops = append(ops, clientv3.OpDelete(m.leaseKey(r.name)))
	}
	count := clientv3.WithCountOnly()
	resp, err := m.kv.Txn(ctx).If(onlyIf...).Then(ops...).
		Else(clientv3.OpGet(key, count), clientv3.OpGet(first, count, clientv3.WithPrefix())).Commit()
	if err != nil {
		return nil, err
	}
	if !resp.Succeeded {
		m.revoke(ctx, id)
		switch {
		case resp.Responses[0].GetResponseRange().Count > 0:
			return nil, permanentError{errKeyExists}
		case resp.Responses[1].GetResponseRange().Count > 0:
			return nil, permanentError{errTaken}
		}
		return nil, permanentError{errRaced}
	}
	for _, r := range replaced {
		m.release(ctx, r.etcdLease)
	}
	rev := resp.Header.Revision
	m.version.atLeast(rev)
	m.afterCreate(subnets)
	own := &record{lease: decode(name, value, rev), name: name, mod: rev, etcdLease: id}
	own.lease.Expires = expires
	return own, nil
}

// unchanged is true in a transaction if nobody has changed a record.
func (m *Manager) unchanged(r *record) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(m.leaseKey(r.name)), "=", r.mod)
}

// put publishes attributes under our key if nobody has changed it; otherwise the
// error is errRaced. With renew it attaches another etcd lease.
func (m *Manager) put(ctx context.Context, own *record, a subnet.Attrs, renew bool) (*record, error) {
	value, err := encodeValue(a)
	if err != nil {
		return nil, permanentError{err}
	}
	id, expires := own.etcdLease, own.lease.Expires
	if renew {
		if id, expires, err = m.grant(ctx); err != nil {
			return nil, err
		}
	}
	m.remember(own.name, a, id)
	resp, err := m.kv.Txn(ctx).If(m.unchanged(own)).
		Then(clientv3.OpPut(m.leaseKey(own.name), string(value), clientv3.WithLease(id))).Commit()
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil, permanentError{errRaced}
	}
	if err != nil {
		return nil, err
	}
	if !resp.Succeeded {
		if renew {
			m.revoke(ctx, id)
		}
		return nil, permanentError{errRaced}
	}
	m.version.atLeast(resp.Header.Revision)
	if renew {
		m.release(ctx, own.etcdLease)
	}
	next := &record{lease: decode(own.name, value, own.lease.Precedence.Age), name: own.name, mod: resp.Header.Revision, etcdLease: id}
	next.lease.Expires = expires
	return next, nil
}

// remove deletes a record if nobody has changed it.
func (m *Manager) remove(ctx context.Context, r *record) error {
	_, err := m.kv.Txn(ctx).If(m.unchanged(r)).Then(clientv3.OpDelete(m.leaseKey(r.name))).Commit()
	if err != nil {
		return err
	}
	m.release(ctx, r.etcdLease)
	return nil
}

// grant asks for an etcd lease and returns when it ends, at the earliest.
func (m *Manager) grant(ctx context.Context) (clientv3.LeaseID, time.Time, error) {
	asked := time.Now()
	resp, err := m.leases.Grant(ctx, int64(m.ttl/time.Second))
	if err != nil {
		return 0, time.Time{}, err
	}
	return resp.ID, asked.Add(time.Duration(resp.TTL) * time.Second), nil
}

// release revokes an etcd lease that was ours unless keys are attached to it: an
// operator may have attached others. A lease that is left over ends by itself.
func (m *Manager) release(ctx context.Context, id clientv3.LeaseID) {
	if id == clientv3.NoLease {
		return
	}
	resp, err := m.leases.TimeToLive(ctx, id, clientv3.WithAttachedKeys())
	if err != nil || resp.TTL <= 0 || len(resp.Keys) > 0 {
		m.log.Debug("etcd lease left to end by itself", "err", err)
		return
	}
	m.revoke(ctx, id)
}

func (m *Manager) revoke(ctx context.Context, id clientv3.LeaseID) {
	if _, err := m.leases.Revoke(ctx, id); err != nil {
		m.log.Debug("etcd lease not revoked, ends by itself", "err", err)
	}
}
