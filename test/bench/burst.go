package main

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// burstPeers leave together.
const burstPeers = 2000

// burst measures changes of very many entries at once: peers that leave the
// large network, and a device that somebody sets down or deletes.
func (b *bench) burst(ctx context.Context) ([]row, error) {
	c, err := b.getJoined(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := c.leavers(ctx, b.peers, b.roundsOr(3))
	if err != nil {
		return rows, err
	}
	lost, err := c.lostDevice(ctx, b.peers, b.roundsOr(3))
	return append(rows, lost...), err
}

// leavers deletes the records of many peers, but not of so many that the daemon
// waits for a second list, and puts them back. joined is how many peers the host
// has joined.
func (c *crowd) leavers(ctx context.Context, joined, rounds int) ([]row, error) {
	n := min(burstPeers, c.peers*2/5)
	took := row{Measure: fmt.Sprintf("%d of %d peers leave, first record to last entry", n, joined), Unit: seconds}
	etcd := row{Measure: "  until etcd has deleted their records", Unit: seconds}
	others, err := c.otherRoutes()
	if err != nil {
		return nil, err
	}
	for range rounds {
		start := time.Now()
		if err := c.store.deletePeers(ctx, c.peers-n, c.peers); err != nil {
			return nil, err
		}
		etcd.Samples = append(etcd.Samples, inSeconds(time.Since(start)))
		c.peers -= n
		if err := c.awaitComplete(ctx, others); err != nil {
			return nil, err
		}
		took.Samples = append(took.Samples, inSeconds(time.Since(start)))
		if err := c.store.putPeers(ctx, c.peers, c.peers+n); err != nil {
			return nil, err
		}
		c.peers += n
		if err := c.awaitComplete(ctx, others); err != nil {
			return nil, err
		}
	}
	return []row{took, etcd}, nil
}

// lostDevice sets the device down, and deletes it.
func (c *crowd) lostDevice(ctx context.Context, joined, rounds int) ([]row, error) {
	others, err := c.otherRoutes()
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, fault := range []struct {
		name    string
		command []string
	}{
		{"set down", []string{"ip", "link", "set", device, "down"}},
		{"deleted", []string{"ip", "link", "del", device}},
	} {
		r := row{Measure: fmt.Sprintf("device %s beside %d peers, to last entry", fault.name, joined), Unit: seconds}
		for range rounds {
			start := time.Now()
			if _, err := c.host.Exec(ctx, fault.command...); err != nil {
				return rows, err
			}
			if err := c.awaitComplete(ctx, others); err != nil {
				return rows, err
			}
			r.Samples = append(r.Samples, inSeconds(time.Since(start)))
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// otherRoutes counts the routes of the host that are no peer's.
func (c *crowd) otherRoutes() (int, error) {
	n, err := c.daemon().routes()
	return n - c.peers, err
}

// awaitComplete waits until the kernel holds the entries of all peers, and no
// others. It lists them only once the number of routes is right.
func (c *crowd) awaitComplete(ctx context.Context, others int) error {
	return until(ctx, "the entries of all peers", 2*time.Millisecond, func() (bool, error) {
		n, err := c.daemon().routes()
		if err != nil || n != others+c.peers {
			return false, err
		}
		err = c.complete()
		return err == nil, err
	})
}

// deletePeers deletes the records of peers number from to below to.
func (s *store) deletePeers(ctx context.Context, from, to int) error {
	for ; from < to; from += maxOps {
		var ops []clientv3.Op
		for i := from; i < min(from+maxOps, to); i++ {
			name, _ := s.record(nthPeer(i))
			ops = append(ops, clientv3.OpDelete(subnetsKey+name))
		}
		if _, err := s.Txn(ctx).Then(ops...).Commit(); err != nil {
			return fmt.Errorf("delete the records of peers: %w", err)
		}
	}
	return nil
}
