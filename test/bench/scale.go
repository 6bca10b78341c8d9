package main

import (
	"context"
	"errors"

	"flannel/lab"
)

// sizes are the networks whose figures make a curve, smallest first.
var sizes = []int{100, 1_000, 5_000, 20_000, 50_000}

// lostDeviceSize is the network in which the device is lost, too.
const lostDeviceSize = 20_000

// joinLimits are those of a join of so many peers, in seconds.
var joinLimits = map[int]float64{20_000: 1, 50_000: 3}

// scale measures a join and further peers in networks of all sizes but the one
// that the other measures have.
func (b *bench) scale(ctx context.Context) (rows []row, err error) {
	if err := b.close(); err != nil {
		return nil, err
	}
	c, err := b.newCrowd(ctx, lab.Options{Network: crowdConfig}, "vxlan", 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for _, size := range sizes {
		if size == b.peers {
			continue
		}
		found, err := b.oneSize(ctx, c, size)
		rows = append(rows, found...)
		if err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// oneSize lets the network grow.
func (b *bench) oneSize(ctx context.Context, c *crowd, size int) ([]row, error) {
	if err := c.store.putPeers(ctx, c.peers, size); err != nil {
		return nil, err
	}
	c.peers = size
	joins, err := c.joins(ctx, b.roundsOr(4))
	if err != nil {
		return nil, err
	}
	if limit, ok := joinLimits[size]; ok {
		joins.join.took.Limit = atMost(limit)
	}
	further, err := c.further(ctx, size, b.roundsOr(20))
	rows := append(joins.all(), further...)
	if err != nil || size != lostDeviceSize {
		return rows, err
	}
	lost, err := c.lostDevice(ctx, size, b.roundsOr(3))
	return append(rows, lost...), err
}
