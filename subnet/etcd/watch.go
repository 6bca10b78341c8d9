package etcd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"flannel/internal/loop"
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
		case w.stood && time.Since(began) > time.Second:
			// The next request shows how the store is, and waits for it.
			m.log.Debug("watch ended", "err", err)
			continue
		case !w.stood:
			m.state.set(err)
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
	// passed is what set was called with last, nil before the first time.
	passed []*subnet.Lease
	// stood is true if the last watch could be set up.
	stood bool
	retry loop.Backoff
}

// take makes s the set, and passes it on if it differs.
func (w *watcher) take(s *snapshot) {
	w.m.o.Watching.Works()
	defer w.m.o.Watching.Waits()
	w.now = s
	if s == nil {
		return
	}
	leases := s.leases()
	if w.passed != nil && subnet.EqualLeases(w.passed, leases) {
		return
	}
	w.passed = leases
	w.set(subnet.Snapshot{Leases: leases, Epoch: w.m.epoch.Load()})
}

// catchUp makes the set one that a watch can continue from: a fresh list, or the
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
	w.m.relist.Clear() // a request to list is fulfilled by this list
	s, err := do(ctx, w.m, w.m.readAll)
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
func (w *watcher) sameStore(ctx context.Context) (bool, error) {
	m, s := w.m, w.now
	return do(ctx, m, func(ctx context.Context) (bool, error) {
		ops := []clientv3.Op{clientv3.OpGet(m.subnetsKey(), clientv3.WithPrefix(), clientv3.WithCountOnly(), clientv3.WithRev(s.rev))}
		last := s.lastChanged()
		if last != nil {
			ops = append(ops, clientv3.OpGet(m.leaseKey(last.name), clientv3.WithRev(s.rev)))
		}
		header, answers, err := m.read(ctx, ops...)
		switch {
		case errors.Is(err, rpctypes.ErrCompacted):
			return false, nil
		case err != nil && !errors.Is(err, rpctypes.ErrFutureRev):
			return false, err
		}
		same := err == nil && header.Revision >= s.rev && answers[0].Count == int64(len(s.records))
		if same && last != nil {
			kvs := answers[1].Kvs
			same = len(kvs) == 1 && readRecord(last.name, kvs[0]).equal(last)
		}
		if !same {
			m.otherStore()
		}
		return same, nil
	})
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
		err = w.m.stream(ctx, key, clientv3.GetPrefixRangeEnd(key), w.now.rev+1, func(resp *pb.WatchResponse) {
			select {
			case responses <- resp:
			case <-ctx.Done():
			}
		})
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
			w.retry.Reset()
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
	w.m.o.Watching.Works()
	defer w.m.o.Watching.Waits()
	next := &snapshot{records: slices.Clone(w.now.records), rev: w.now.rev, read: time.Now()}
	changed := false
	for _, resp := range responses {
		for _, event := range resp.Events {
			next.apply(strings.TrimPrefix(string(event.Kv.Key), w.m.subnetsKey()), event)
			next.rev = max(next.rev, event.Kv.ModRevision)
			changed = true
		}
	}
	if changed {
		w.m.version.atLeast(next.rev)
		w.take(next)
	}
}

// stream watches one key, or the range up to end, from a revision on, and calls
// handle with what arrives, first with the answer that the watch exists. It
// returns why the watch ended. Unlike the client's own watcher it is not set up
// again by itself after a lost connection: its caller then has to find out
// whether the store behind the connection is still the same.
func (m *Manager) stream(ctx context.Context, key, end string, from int64, handle func(*pb.WatchResponse)) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	watch, err := pb.NewWatchClient(m.client.ActiveConnection()).Watch(ctx, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		return err
	}
	create := &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end), StartRevision: from}
	if err := watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		_, err = watch.Recv() // returns why
		return err
	}
	for {
		resp, err := watch.Recv()
		if err != nil {
			return err
		}
		if resp.Canceled {
			return canceled(resp)
		}
		handle(resp)
	}
}

func canceled(resp *pb.WatchResponse) error {
	if resp.CompactRevision != 0 {
		return rpctypes.ErrCompacted
	}
	if resp.CancelReason == "" {
		return errors.New("watch canceled by the server")
	}
	// The reason may be the text of a known error.
	if known := rpctypes.Error(errors.New(resp.CancelReason)); known != nil {
		return known
	}
	return fmt.Errorf("watch canceled by the server: %s", resp.CancelReason)
}

// watchKey sends a signal whenever a key may have changed: after each event, and
// after each time that the watch had to be set up. stop ends that, and waits for
// its end.
func (m *Manager) watchKey(ctx context.Context, key string) (changed loop.Signal, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	changed = loop.NewSignal()
	var group sync.WaitGroup
	group.Go(func() {
		var retry loop.Backoff
		for {
			err := m.stream(ctx, key, "", 0, func(*pb.WatchResponse) {
				retry.Reset()
				changed.Send()
			})
			if ctx.Err() != nil {
				return
			}
			changed.Send() // the request that follows finds out how the store is
			if wantsToken(err) {
				_ = m.authenticate(ctx)
			}
			m.log.Debug("watch ended", "key", key, "err", err)
			if m.pause(ctx, &retry) != nil {
				return
			}
		}
	})
	return changed, func() {
		cancel()
		group.Wait()
	}
}
