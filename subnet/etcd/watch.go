package etcd

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/subnet"
)

// Watch implements subnet.Manager.
func (m *Manager) Watch(ctx context.Context, set func(subnet.Snapshot)) error {
	w := &watcher{m: m, set: set}
	w.take(m.takeRecent())
	for {
		if err := w.catchUp(ctx); err != nil {
			return err
		}
		began := time.Now()
		err := w.follow(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errAnew), errors.Is(err, rpctypes.ErrCompacted):
			w.now = nil
			continue
		case w.stood && time.Since(began) > firstRetry:
			// The next request shows how the store is, and waits for it.
			m.log.Debug("watch ended", "err", err)
			continue
		case !w.stood:
			m.state.down(err)
		}
		if err := m.pause(ctx, &w.retry); err != nil {
			return err
		}
	}
}

// errAnew ends a watch whose set of leases may be wrong.
var errAnew = errors.New("the store is another one")

// watcher holds what Watch knows.
type watcher struct {
	m   *Manager
	set func(subnet.Snapshot)
	// now is the set that is up to date; nil when it must be listed.
	now *snapshot
	// told is what set was called with last.
	told *snapshot
	// stood says that the last watch could be set up.
	stood bool
	retry retries
}

// take makes s the set, and passes it on if it differs.
func (w *watcher) take(s *snapshot) {
	w.now = s
	if s == nil || w.told != nil && subnet.EqualLeases(w.told.leases, s.leases) {
		return
	}
	w.told = s
	w.set(subnet.Snapshot{Leases: s.leases, Epoch: w.m.epoch.Load()})
}

// catchUp makes the set one that a watch can go on from: a fresh list, or the
// present set if the store still is the one it was read from.
func (w *watcher) catchUp(ctx context.Context) error {
	if w.now != nil {
		same, err := w.sameStore(ctx)
		if err != nil {
			return err
		}
		if same {
			return nil
		}
	}
	select { // a request to list is fulfilled by this list
	case <-w.m.relist:
	default:
	}
	s, err := w.m.list(ctx)
	if err != nil {
		return err
	}
	w.take(s)
	return nil
}

// sameStore asks whether the store, at the revision of our set, holds as many
// leases as we know and the last changed one as we know it. A store that was
// wiped or restored does not, even if its revision is ahead of ours again.
// That spares a whole list per node each time that etcd restarts.
func (w *watcher) sameStore(ctx context.Context) (same bool, err error) {
	m, s := w.m, w.now
	err = m.do(ctx, func(ctx context.Context) error {
		floor := m.version.floor()
		count := clientv3.OpGet(m.subnetsKey(), clientv3.WithPrefix(), clientv3.WithCountOnly(), clientv3.WithRev(s.rev))
		ops := []clientv3.Op{count}
		last, known := s.lastChanged()
		if known {
			ops = append(ops, clientv3.OpGet(m.leaseKey(s.stored[last].name), clientv3.WithRev(s.rev)))
		}
		resp, err := m.kv.Txn(ctx).Then(ops...).Commit()
		if errors.Is(err, rpctypes.ErrCompacted) {
			same = false
			return nil
		}
		if errors.Is(err, rpctypes.ErrFutureRev) {
			same = false
			m.otherStore()
			return nil
		}
		if err != nil {
			return err
		}
		m.observe(resp.Header, floor)
		defer func() {
			if !same {
				m.otherStore()
			}
		}()
		same = resp.Header.Revision >= s.rev && resp.Responses[0].GetResponseRange().Count == int64(len(s.leases))
		if same && known {
			kvs := resp.Responses[1].GetResponseRange().Kvs
			same = len(kvs) == 1 && s.agrees(last, kvs[0])
		}
		return nil
	})
	return same, err
}

func (s *snapshot) lastChanged() (int, bool) {
	last := 0
	for i, st := range s.stored {
		if st.mod > s.stored[last].mod {
			last = i
		}
	}
	return last, len(s.stored) > 0
}

func (s *snapshot) agrees(i int, kv *mvccpb.KeyValue) bool {
	l, st := readRecord(s.stored[i].name, kv)
	return st == s.stored[i] && l.Equal(*s.leases[i])
}

// follow applies events until the watch ends, and returns why.
func (w *watcher) follow(ctx context.Context) error {
	w.stood = false
	ctx, cancel := context.WithCancel(ctx)
	responses := make(chan *pb.WatchResponse, 64) // closed by the goroutine
	var err error
	go func() {
		defer close(responses)
		key := w.m.subnetsKey()
		err = w.m.stream(ctx, key, clientv3.GetPrefixRangeEnd(key), w.now.rev+1, responses)
	}()
	defer func() {
		cancel()
		for range responses { // until the goroutine has ended
		}
	}()
	for {
		select {
		case <-w.m.relist:
			return errAnew
		case resp, open := <-responses:
			if !open {
				return err
			}
			w.stood = true
			w.retry.reset()
			w.apply(append([]*pb.WatchResponse{resp}, waiting(responses)...))
		}
	}
}

// waiting returns what has arrived already: many changes become one set.
func waiting(responses <-chan *pb.WatchResponse) []*pb.WatchResponse {
	var all []*pb.WatchResponse
	for {
		select {
		case resp, open := <-responses:
			if !open {
				return all
			}
			all = append(all, resp)
		default:
			return all
		}
	}
}

// apply makes the next set out of the present one and events.
func (w *watcher) apply(responses []*pb.WatchResponse) {
	next := &snapshot{rev: w.now.rev, read: time.Now()}
	next.leases, next.stored = slices.Clone(w.now.leases), slices.Clone(w.now.stored)
	changed := false
	for _, resp := range responses {
		for _, event := range resp.Events {
			next.apply(strings.TrimPrefix(string(event.Kv.Key), w.m.subnetsKey()), event)
			next.rev = max(next.rev, event.Kv.ModRevision)
			changed = true
		}
	}
	if !changed {
		return
	}
	w.m.version.atLeast(next.rev)
	w.take(next)
}

// apply changes a snapshot that nobody else has yet.
func (s *snapshot) apply(name string, event *mvccpb.Event) {
	i, found := s.find(name)
	if event.Type == mvccpb.DELETE {
		if found {
			s.leases = slices.Delete(s.leases, i, i+1)
			s.stored = slices.Delete(s.stored, i, i+1)
		}
		return
	}
	l, st := readRecord(name, event.Kv)
	if found {
		s.leases[i], s.stored[i] = l, st
		return
	}
	s.leases = slices.Insert(s.leases, i, l)
	s.stored = slices.Insert(s.stored, i, st)
}
