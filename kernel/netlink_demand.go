package kernel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flannel/kernel/rtnl"

	"golang.org/x/sys/unix"
)

// missBuffer is how many bytes of questions the kernel keeps. When it has more
// they are lost, and it asks again.
const missBuffer = 1 << 20

// followMisses hands on the kernel's questions until the socket breaks or ctx
// ends.
func (n *Netlink) followMisses(ctx context.Context, q *misses) error {
	questions, err := rtnl.Listen(n.options.Namespace, missBuffer, unix.RTNLGRP_NEIGH)
	if err != nil {
		return fmt.Errorf("listen for misses: %w", err)
	}
	defer func() { _ = questions.Close() }()
	n.setSocket(&n.questions, questions)
	defer n.setSocket(&n.questions, nil)
	if err := n.refilter(); err != nil {
		return err
	}
	for {
		err := questions.Read(ctx, func(m rtnl.Message) {
			if miss, ok := n.miss(m); ok {
				q.add(miss)
			}
		})
		if err != nil && !errors.Is(err, rtnl.ErrOverrun) {
			return err
		}
	}
}

// expireUnused looks now and then for peers that nobody talks to any more.
func (n *Netlink) expireUnused(ctx context.Context) {
	tick := time.NewTicker(max(n.options.Unused/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			n.expire(ctx, n.options.Unused)
		}
	}
}

func (t netlinkTables) fdbAges(dev int, each func(k fdbKey, unused time.Duration)) error {
	return t.dumpNeigh(unix.AF_BRIDGE, dev, func(n rtnl.Neigh) { each(fdbKey{dev, n.MAC}, n.Unused) })
}

// release resolves the addresses that have a MAC, which sends the packets that
// wait, then removes all of them: an entry per pod address would fill the
// kernel's table. Who is not resolved loses its packets.
func (t netlinkTables) release(list []waiting) {
	ignore := func(int, error) {}
	t.conn.Do(len(list), func(b *rtnl.Batch, i int) {
		w := &list[i]
		h := neighHeader(neighKey{w.dev, w.addr})
		if w.mac.IsZero() {
			b.Neigh(unix.RTM_DELNEIGH, 0, h)
			b.Addr(unix.NDA_DST, w.addr)
			return
		}
		h.State = unix.NUD_REACHABLE
		b.Neigh(unix.RTM_NEWNEIGH, unix.NLM_F_REPLACE, h)
		b.Addr(unix.NDA_DST, w.addr)
		b.Bytes(unix.NDA_LLADDR, w.mac[:])
	}, ignore)
	t.conn.Do(len(list), func(b *rtnl.Batch, i int) {
		w := &list[i]
		b.Neigh(unix.RTM_DELNEIGH, 0, neighHeader(neighKey{w.dev, w.addr}))
		b.Addr(unix.NDA_DST, w.addr)
	}, ignore)
}
