package etcd

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// record is a lease as it is in the store. One that is part of a snapshot is
// never changed.
type record struct {
	lease subnet.Lease
	// name is the last element of the key, in full.
	name string
	// mod is the revision of the last change; zero if it is not known.
	mod int64
	// etcdLease is zero for a reservation.
	etcdLease clientv3.LeaseID
}

func readRecord(name string, kv *mvccpb.KeyValue) *record {
	return &record{
		lease: decode(name, kv.Value, kv.CreateRevision), name: name,
		mod: kv.ModRevision, etcdLease: clientv3.LeaseID(kv.Lease),
	}
}

func (r *record) isReservation() bool {
	return r.etcdLease == clientv3.NoLease && r.lease.Invalid == ""
}

func (r *record) equal(o *record) bool {
	return r.name == o.name && r.mod == o.mod && r.etcdLease == o.etcdLease && r.lease.Equal(o.lease)
}

// snapshot is the set of records at one revision. It is never changed.
type snapshot struct {
	records []*record // in the order of their names
	rev     int64
	epoch   uint64 // see Manager.epoch
	read    time.Time
}

// leases returns the leases of all records; they are never changed.
func (s *snapshot) leases() []*subnet.Lease {
	leases := make([]*subnet.Lease, len(s.records))
	for i, r := range s.records {
		leases[i] = &r.lease
	}
	return leases
}

// List implements subnet.Manager.
func (m *Manager) List(ctx context.Context) ([]*subnet.Lease, error) {
	s, err := do(ctx, m, m.readAll)
	if err != nil {
		return nil, err
	}
	return s.leases(), nil
}

// readAll reads all leases in one request.
func (m *Manager) readAll(ctx context.Context) (*snapshot, error) {
	epoch := m.epoch.Load()
	header, answers, err := m.read(ctx, clientv3.OpGet(m.subnetsKey(), clientv3.WithPrefix()))
	if err != nil {
		return nil, err
	}
	s := &snapshot{records: make([]*record, len(answers[0].Kvs)), rev: header.Revision, epoch: epoch, read: time.Now()}
	folder := len(m.subnetsKey())
	for i, kv := range answers[0].Kvs {
		s.records[i] = readRecord(string(kv.Key[folder:]), kv)
	}
	return s, nil
}

// readAgain is readAll after before was read: only what has changed since is sent
// again, if nothing was deleted and the store is still the same.
func (m *Manager) readAgain(ctx context.Context, before *snapshot) (*snapshot, error) {
	if before.epoch != m.epoch.Load() {
		return m.readAll(ctx)
	}
	header, answers, err := m.read(ctx, clientv3.OpGet(m.subnetsKey(), clientv3.WithPrefix(), clientv3.WithMinModRev(before.rev+1)))
	if err != nil {
		return nil, err
	}
	s := &snapshot{records: slices.Clone(before.records), rev: header.Revision, epoch: before.epoch, read: time.Now()}
	folder := len(m.subnetsKey())
	for _, kv := range answers[0].Kvs {
		s.put(string(kv.Key[folder:]), kv)
	}
	all := answers[0].Count // of all keys in the folder
	if before.epoch != m.epoch.Load() || before.rev > header.Revision || all != int64(len(s.records)) {
		return m.readAll(ctx)
	}
	return s, nil
}

// freshFor is how long a list may be used without reading it again: events and
// transactions correct what has changed since.
const freshFor = 10 * time.Second

// takeRecent returns the list that was just read, once; nil if there is none.
func (m *Manager) takeRecent() *snapshot {
	if s := m.recent.Swap(nil); s != nil && time.Since(s.read) < freshFor {
		return s
	}
	return nil
}

// apply changes a snapshot that nobody else has yet.
func (s *snapshot) apply(name string, event *mvccpb.Event) {
	if event.Type != mvccpb.DELETE {
		s.put(name, event.Kv)
	} else if i, found := s.find(name); found {
		s.records = slices.Delete(s.records, i, i+1)
	}
}

// put takes in what a key holds.
func (s *snapshot) put(name string, kv *mvccpb.KeyValue) {
	if i, found := s.find(name); found {
		s.records[i] = readRecord(name, kv)
	} else {
		s.records = slices.Insert(s.records, i, readRecord(name, kv))
	}
}

func (s *snapshot) find(name string) (i int, found bool) {
	return slices.BinarySearchFunc(s.records, name, func(r *record, name string) int { return strings.Compare(r.name, name) })
}

// lastChanged returns the record that was changed last, nil if there is none.
func (s *snapshot) lastChanged() *record {
	var last *record
	for _, r := range s.records {
		if last == nil || r.mod > last.mod {
			last = r
		}
	}
	return last
}

// without returns the records that are not among some.
func (s *snapshot) without(some []*record) []*record {
	return slices.DeleteFunc(slices.Clone(s.records), func(r *record) bool { return slices.Contains(some, r) })
}

func subnetsOf(records []*record) []ipfam.Pair[netip.Prefix] {
	all := make([]ipfam.Pair[netip.Prefix], len(records))
	for i, r := range records {
		all[i] = r.lease.Subnet
	}
	return all
}
