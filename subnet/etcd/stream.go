package etcd

import (
	"context"
	"errors"
	"fmt"
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// stream watches one key, or the range up to end, from a revision on, and
// hands over what arrives, first the answer that the watch exists. It returns
// why the watch ended. Unlike the client's own watcher it does not go on by
// itself after a lost connection: who watches then has to look whether the
// store behind the connection is still the same.
func (m *Manager) stream(ctx context.Context, key, end string, from int64, responses chan<- *pb.WatchResponse) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	watch, err := pb.NewWatchClient(m.client.ActiveConnection()).Watch(ctx, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		return err
	}
	create := &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end), StartRevision: from}
	if err := watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		_, err = watch.Recv() // says why
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
		select {
		case responses <- resp:
		case <-ctx.Done():
			return ctx.Err()
		}
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

// notice calls wake whenever a key may have changed: after each event, and
// after each time that the watch had to be set up. It returns ctx.Err().
func (m *Manager) notice(ctx context.Context, key string, wake func()) error {
	var retry retries
	for {
		responses := make(chan *pb.WatchResponse) // closed by the goroutine
		var err error
		go func() {
			defer close(responses)
			err = m.stream(ctx, key, "", 0, responses)
		}()
		for range responses {
			retry.reset()
			wake()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wake() // the request that follows finds out how the store is
		if wantsToken(err) {
			_ = m.authenticate(ctx)
		}
		m.log.Debug("watch ended", "key", key, "err", err)
		if err := m.pause(ctx, &retry); err != nil {
			return err
		}
	}
}
