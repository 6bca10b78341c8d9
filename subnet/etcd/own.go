package etcd

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// held is the own lease as it was last seen in the store.
type held struct {
	lease subnet.Lease
	// mod is the revision of the last change; zero when not known.
	mod int64
	// etcdLease is zero for a reservation.
	etcdLease clientv3.LeaseID
	// alone says when the other records were looked at since this one was
	// created, and none had a better claim to the subnet: it is the count of
	// stores seen, see Manager.stores. Zero is never.
	alone uint64
}

func (h held) name() string { return encodeName(h.lease.Subnet) }

// errRaced says that somebody else was faster; the caller looks again.
var errRaced = errors.New("the store has changed meanwhile")

func (m *Manager) currentOwn() (held, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.own == nil {
		return held{}, false
	}
	return *m.own, true
}

func (m *Manager) setOwn(own *held) {
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
	past, news := m.past.with(name, a, etcdLease)
	if !news {
		return
	}
	m.past = past
	m.saving.Fail("write to the state folder", m.o.State.Save(publishedDocument, past))
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

func (m *Manager) published() published {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.past
}

// create publishes a lease that nobody else has a claim to, in place of others
// of this node. Without an error it may return false: then a key with the same
// first subnet exists, and taken says whether that is the very key.
func (m *Manager) create(ctx context.Context, subnets ipfam.Pair[netip.Prefix], a subnet.Attrs, replaced []held) (own held, created, taken bool, err error) {
	value, err := encodeValue(a)
	if err != nil {
		return held{}, false, false, final{err}
	}
	id, expires, err := m.grant(ctx)
	if err != nil {
		return held{}, false, false, err
	}
	name := encodeName(subnets)
	m.remember(name, a, id)
	m.beforeCreate(subnets)
	key := m.leaseKey(name)
	claim := m.leaseKey(claimPrefix(subnets))
	onlyIf := []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(claim), "=", 0).WithPrefix()}
	ops := []clientv3.Op{clientv3.OpPut(key, string(value), clientv3.WithLease(id))}
	for _, r := range replaced {
		onlyIf = append(onlyIf, clientv3.Compare(clientv3.ModRevision(m.leaseKey(r.name())), "=", r.mod))
		ops = append(ops, clientv3.OpDelete(m.leaseKey(r.name())))
	}
	count := clientv3.WithCountOnly()
	resp, err := m.kv.Txn(ctx).If(onlyIf...).Then(ops...).
		Else(clientv3.OpGet(key, count), clientv3.OpGet(claim, count, clientv3.WithPrefix())).Commit()
	if err != nil {
		return held{}, false, false, err
	}
	if !resp.Succeeded {
		m.revoke(ctx, id)
		if claimed := resp.Responses[1].GetResponseRange().Count > 0; !claimed {
			return held{}, false, false, final{errRaced}
		}
		return held{}, false, resp.Responses[0].GetResponseRange().Count > 0, nil
	}
	for _, r := range replaced {
		m.release(ctx, r.etcdLease)
	}
	m.version.atLeast(resp.Header.Revision)
	m.afterCreate(subnets)
	lease := decode(name, value, resp.Header.Revision)
	lease.Expires = expires
	return held{lease: *lease, mod: resp.Header.Revision, etcdLease: id}, true, false, nil
}

// put publishes attributes under the own key if nobody else has changed it;
// otherwise the error is errRaced. With renew it attaches another etcd lease.
func (m *Manager) put(ctx context.Context, own held, a subnet.Attrs, renew bool) (held, error) {
	value, err := encodeValue(a)
	if err != nil {
		return held{}, final{err}
	}
	old := own.etcdLease
	if renew {
		if own.etcdLease, own.lease.Expires, err = m.grant(ctx); err != nil {
			return held{}, err
		}
	}
	m.remember(own.name(), a, own.etcdLease)
	key := m.leaseKey(own.name())
	resp, err := m.kv.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", own.mod)).
		Then(clientv3.OpPut(key, string(value), clientv3.WithLease(own.etcdLease))).Commit()
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return held{}, final{errRaced}
	}
	if err != nil {
		return held{}, err
	}
	if !resp.Succeeded {
		if renew {
			m.revoke(ctx, own.etcdLease)
		}
		return held{}, final{errRaced}
	}
	m.version.atLeast(resp.Header.Revision)
	own.mod = resp.Header.Revision
	published := decode(own.name(), value, own.lease.Precedence.Age)
	published.Expires = own.lease.Expires
	own.lease = *published
	if renew {
		m.release(ctx, old)
	}
	return own, nil
}

// remove deletes a record if nobody else has changed it.
func (m *Manager) remove(ctx context.Context, h held) error {
	key := m.leaseKey(h.name())
	_, err := m.kv.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", h.mod)).
		Then(clientv3.OpDelete(key)).Commit()
	if err != nil {
		return err
	}
	m.release(ctx, h.etcdLease)
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

// release revokes an etcd lease that was ours unless something hangs on it:
// an operator may have attached other keys. A lease that is left over ends by
// itself.
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
