package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"flannel/internal/loop"
	"flannel/kernel/rtnl"
)

// netlinkEvents receives the events of the kernel on one socket and its
// questions (L3 misses) on another, so that a scan cannot displace events.
type netlinkEvents struct {
	log       *slog.Logger
	namespace int
	// port is that of our own writes.
	port uint32
	// buffer is how many bytes of events the kernel keeps.
	buffer int
	// networks are those inside which the routes of others matter.
	networks []netip.Prefix

	mu           sync.Mutex
	subscription Subscription
	// nil while nobody listens
	events, questions *rtnl.Events
}

const (
	// reopenAfter is how long to wait if a socket cannot be opened or breaks.
	reopenAfter = time.Second
	// questionBuffer is how many bytes of questions the kernel keeps. If it has
	// more they are lost, and it asks again.
	questionBuffer = 1 << 20
)

// The groups whose events can be about us.
func eventGroups() []int {
	return []int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
	}
}

// follow listens on both sockets until ctx ends, and again if one breaks.
func (n *netlinkEvents) follow(ctx context.Context, o Observer) {
	var questions sync.WaitGroup
	questions.Go(func() {
		n.keepListening(ctx, "misses", func() error {
			open := func() (*rtnl.Events, error) { return rtnl.Listen(n.namespace, questionBuffer, unix.RTNLGRP_NEIGH) }
			return n.listen(ctx, open, &n.questions, func() {}, func() {}, o.Question)
		})
	})
	defer questions.Wait()
	n.keepListening(ctx, "events", func() error {
		open := func() (*rtnl.Events, error) { return rtnl.Listen(n.namespace, n.buffer, eventGroups()...) }
		// What happened before the socket was open is unknown.
		return n.listen(ctx, open, &n.events, o.Suspect, o.Lost, o.Event)
	})
}

func (n *netlinkEvents) keepListening(ctx context.Context, what string, listen func() error) {
	for {
		err := listen()
		if ctx.Err() != nil {
			return
		}
		n.log.Warn("messages of the kernel interrupted, will listen again", "about", what, "err", err)
		if loop.Wait(ctx, reopenAfter) != nil {
			return
		}
	}
}

// listen passes the messages of one socket until it breaks or ctx ends. opened
// is called when the socket is ready, lost when messages were lost.
func (n *netlinkEvents) listen(ctx context.Context, open func() (*rtnl.Events, error), at **rtnl.Events, opened, lost func(), each func(rtnl.Message)) error {
	socket, err := open()
	if err != nil {
		return fmt.Errorf("listen to the kernel: %w", err)
	}
	defer func() { _ = socket.Close() }()
	if err := n.update(func() { *at = socket }); err != nil {
		return err
	}
	defer func() { _ = n.update(func() { *at = nil }) }()
	opened()
	for {
		err := socket.Read(ctx, each)
		switch {
		case errors.Is(err, rtnl.ErrOverrun):
			lost()
		case err != nil:
			return err
		}
	}
}

func (n *netlinkEvents) watch(s Subscription) error {
	return n.update(func() { n.subscription = s })
}

// update changes what to listen for, and the filters of both sockets.
func (n *netlinkEvents) update(change func()) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	s := n.subscription
	return errors.Join(setFilter(n.events, eventFilter(n.port, s, n.networks)), setFilter(n.questions, missFilter(s.Devices)))
}

func setFilter(e *rtnl.Events, program []bpf.Instruction) error {
	if e == nil {
		return nil
	}
	err := e.Filter(program)
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
