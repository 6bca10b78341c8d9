package etcd

import (
	"context"
	"strconv"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// version follows the store's revision.
type version struct {
	mu      sync.Mutex
	rev     int64
	cluster uint64
}

// floor is a revision that a request made from here on cannot be answered
// below, unless the store lost its data.
func (v *version) floor() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.rev
}

// follow takes in the answer to a request and reports whether the store is
// another one than before.
func (v *version) follow(h *pb.ResponseHeader, floor int64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	other := h.Revision < floor || v.cluster != 0 && v.cluster != h.ClusterId
	if other || h.Revision > v.rev {
		v.rev = h.Revision
	}
	v.cluster = h.ClusterId
	return other
}

// atLeast takes in a revision that an event or a write has shown.
func (v *version) atLeast(rev int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rev = max(v.rev, rev)
}

// Identity is etcd's cluster ID: it is another one when etcd was set up anew.
// It is empty before the first answer.
func (m *Manager) Identity() string {
	m.version.mu.Lock()
	defer m.version.mu.Unlock()
	if m.version.cluster == 0 {
		return ""
	}
	return strconv.FormatUint(m.version.cluster, 16)
}

// read makes several reads in one request. If the store turns out to have been
// wiped or restored, Watch lists anew.
func (m *Manager) read(ctx context.Context, ops ...clientv3.Op) (*pb.ResponseHeader, []*pb.RangeResponse, error) {
	floor := m.version.floor()
	resp, err := m.kv.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, nil, err
	}
	if m.version.follow(resp.Header, floor) {
		m.otherStore()
		m.log.Warn("etcd was wiped or restored, reading all leases again", "revision", resp.Header.Revision, "before", floor)
		m.listAgain()
	}
	answers := make([]*pb.RangeResponse, len(ops))
	for i, r := range resp.Responses {
		answers[i] = r.GetResponseRange()
	}
	return resp.Header, answers, nil
}

// otherStore notes that the store is another one than before.
func (m *Manager) otherStore() {
	m.epoch.Add(1)
	m.recheck.Send()
}

// listAgain asks Watch for a fresh list. It never blocks.
func (m *Manager) listAgain() {
	m.recent.Store(nil)
	m.relist.Send()
}
