package conntrack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// eventBuffer is how many bytes of events the kernel keeps.
const eventBuffer = 4 << 20

// Destroyed follows the entries that end, until ctx ends or the socket breaks.
// opened is called when events begin to arrive, lost when some were lost; what was
// known before is then in doubt. The calls must not block for long.
func Destroyed(ctx context.Context, namespace int, opened, lost func(), each func(orig Tuple)) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{
		NetNS: namespace, Groups: 1 << (unix.NFNLGRP_CONNTRACK_DESTROY - 1),
	})
	if err != nil {
		return fmt.Errorf("listen to conntrack: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetReadBuffer(eventBuffer) // the kernel's limit may be lower; then more are lost
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	opened()
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			lost()
			continue
		case err != nil:
			return fmt.Errorf("listen to conntrack: %w", err)
		}
		for _, m := range messages {
			if entry, err := parse(m.Data); err == nil && uint16(m.Header.Type) == messageDelete {
				each(entry.Orig)
			}
		}
	}
}
