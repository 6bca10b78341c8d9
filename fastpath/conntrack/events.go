package conntrack

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"flannel/kernel/rtnl"
)

// eventBuffer is how many bytes of events the kernel keeps.
const eventBuffer = 4 << 20

// Destroyed follows the entries that end, until ctx ends or the socket breaks.
// opened is called when events begin to arrive; an entry that is there already may
// end without one (nf_conntrack_events, 2). lost is called when some were lost; what
// was known before is then in doubt. The calls must not block for long.
func Destroyed(ctx context.Context, namespace int, opened func() error, lost func(), each func(orig Tuple)) error {
	events, err := rtnl.ListenTo(namespace, unix.NETLINK_NETFILTER, eventBuffer, unix.NFNLGRP_CONNTRACK_DESTROY)
	if err != nil {
		return fmt.Errorf("listen to conntrack: %w", err)
	}
	defer func() { _ = events.Close() }()
	if err := opened(); err != nil {
		return err
	}
	for {
		err := events.Read(ctx, func(m rtnl.Message) {
			if e, ok := parse(m.Body); ok && m.Type == messageDelete {
				each(e.Orig)
			}
		})
		switch {
		case errors.Is(err, rtnl.ErrOverrun):
			lost()
		case err != nil:
			return err
		}
	}
}
