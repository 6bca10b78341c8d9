package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"flannel/lab"
)

const (
	subnetsKey = lab.DefaultPrefix + "/subnets/"
	// maxOps is how many puts etcd takes in one transaction.
	maxOps = 128
	// leaseSeconds is how long records live, as flannel's.
	leaseSeconds = 86400
)

// store is the bench's own connection to the etcd of a lab.
type store struct {
	*clientv3.Client
	lease clientv3.LeaseID
	// backend is the backend type in records; dual ones have both families.
	backend string
	dual    bool
}

func openStore(ctx context.Context, l *lab.Lab, backend string, dual bool) (*store, error) {
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		return l.Etcd.Node.Dial(ctx, "tcp", address)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{l.Etcd.Endpoint()},
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial)},
		DialTimeout: 5 * time.Second,
		Logger:      zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	granted, err := client.Grant(ctx, leaseSeconds)
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("get an etcd lease: %w", err)
	}
	return &store{client, granted.ID, backend, dual}, nil
}

// putPeers writes the records of peers number from to below to.
func (s *store) putPeers(ctx context.Context, from, to int) error {
	for ; from < to; from += maxOps {
		var ops []clientv3.Op
		for i := from; i < min(from+maxOps, to); i++ {
			name, value := s.record(nthPeer(i))
			ops = append(ops, clientv3.OpPut(subnetsKey+name, value, clientv3.WithLease(s.lease)))
		}
		if _, err := s.Txn(ctx).Then(ops...).Commit(); err != nil {
			return fmt.Errorf("put the records of peers: %w", err)
		}
	}
	return nil
}

// putPeer writes one record.
func (s *store) putPeer(ctx context.Context, p peer) error {
	name, value := s.record(p)
	_, err := s.Put(ctx, subnetsKey+name, value, clientv3.WithLease(s.lease))
	return err
}

func (s *store) record(p peer) (name, value string) {
	if s.dual {
		return p.dualName(), p.dualValue()
	}
	return p.name(), p.value(s.backend)
}

// forget deletes the record of a subnet.
func (s *store) forget(ctx context.Context, name string) error {
	_, err := s.Delete(ctx, subnetsKey+name)
	return err
}

// keyName returns the last element of the key of a subnet.
func keyName(subnet string) string { return strings.ReplaceAll(subnet, "/", "-") }
