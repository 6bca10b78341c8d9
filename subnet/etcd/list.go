package etcd

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/subnet"
)

// snapshot is the set of leases at one revision. It is never changed.
type snapshot struct {
	// leases and stored are in the order of the names, and parallel.
	leases []*subnet.Lease
	stored []stored
	rev    int64
	read   time.Time
}

// stored is what only the store needs to know about a record.
type stored struct {
	// name is the last element of the key, in full.
	name string
	// mod is the revision of the last change.
	mod int64
	// etcdLease is zero for a reservation.
	etcdLease clientv3.LeaseID
}

func readRecord(name string, kv *mvccpb.KeyValue) (*subnet.Lease, stored) {
	return decode(name, kv.Value, kv.CreateRevision),
		stored{name: name, mod: kv.ModRevision, etcdLease: clientv3.LeaseID(kv.Lease)}
}

// List implements subnet.Manager.
func (m *Manager) List(ctx context.Context) ([]*subnet.Lease, error) {
	s, err := m.list(ctx)
	if err != nil {
		return nil, err
	}
	return s.leases, nil
}

// list waits for the store.
func (m *Manager) list(ctx context.Context) (*snapshot, error) {
	var s *snapshot
	err := m.do(ctx, func(ctx context.Context) (err error) {
		s, err = m.readAll(ctx)
		return err
	})
	return s, err
}

// readAll reads all leases in one request.
func (m *Manager) readAll(ctx context.Context) (*snapshot, error) {
	floor := m.version.floor()
	resp, err := m.kv.Get(ctx, m.subnetsKey(), clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	m.observe(resp.Header, floor)
	s := &snapshot{
		leases: make([]*subnet.Lease, len(resp.Kvs)),
		stored: make([]stored, len(resp.Kvs)),
		rev:    resp.Header.Revision,
		read:   time.Now(),
	}
	for i, kv := range resp.Kvs {
		s.leases[i], s.stored[i] = readRecord(strings.TrimPrefix(string(kv.Key), m.subnetsKey()), kv)
	}
	return s, nil
}

// freshFor is how long a list need not be read again by the next who needs
// one: events and transactions correct what has changed since.
const freshFor = 10 * time.Second

// takeRecent returns the list that somebody has just read, once.
func (m *Manager) takeRecent() *snapshot {
	if s := m.recent.Swap(nil); s != nil && time.Since(s.read) < freshFor {
		return s
	}
	return nil
}

// find returns the position of a name, or where it would be.
func (s *snapshot) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s.stored, name, func(a stored, name string) int {
		return strings.Compare(a.name, name)
	})
}

// version follows the store's revision.
type version struct {
	mu      sync.Mutex
	rev     int64
	cluster uint64
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

// atLeast takes in a revision that an event has shown.
func (v *version) atLeast(rev int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rev = max(v.rev, rev)
}

// observe takes in the answer to a request. When the store was wiped or
// restored it asks Watch to begin anew.
func (m *Manager) observe(h *pb.ResponseHeader, floor int64) {
	if m.version.follow(h, floor) {
		m.otherStore()
		m.log.Warn("etcd was wiped or restored, reading all leases again", "revision", h.Revision, "before", floor)
		m.listAgain()
	}
}

// otherStore notes that the store is another one than before.
func (m *Manager) otherStore() {
	m.epoch.Add(1)
	m.recheck.give()
}

// stores counts the stores that were seen, this one included.
func (m *Manager) stores() uint64 { return m.epoch.Load() + 1 }

// listAgain asks Watch for a fresh list. It never blocks.
func (m *Manager) listAgain() {
	m.recent.Store(nil)
	m.relist.give()
}
