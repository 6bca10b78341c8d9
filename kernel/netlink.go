package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"flannel/internal/wait"
	"flannel/kernel/rtnl"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Options is what New needs.
type Options struct {
	Log   *slog.Logger
	Scope Scope
	// Namespace is the open network namespace to work in; zero is the current
	// one.
	Namespace int
	// LockDir is where claims are looked for; empty means LockDir.
	LockDir string
	// EventBuffer is how many bytes of events the kernel keeps until they are
	// read; zero means a buffer that is large enough for a flushed table.
	EventBuffer int
	// Unused is after which time without traffic the entries of a peer go that
	// was reached on demand; zero means five minutes.
	Unused time.Duration
}

const defaultUnused = 5 * time.Minute

const defaultEventBuffer = 4 << 20

// Netlink makes the kernel of this host hold what is wanted. Its methods can be
// called at the same time.
type Netlink struct {
	*reconciler
	options Options
	conn    *rtnl.Conn
	handle  *netlink.Handle
	links   *netlinkLinks

	mu sync.Mutex
	// nil while nobody listens
	events, questions *rtnl.Events
}

// New opens the connection to the kernel. Close ends it.
func New(o Options) (*Netlink, error) {
	if o.EventBuffer == 0 {
		o.EventBuffer = defaultEventBuffer
	}
	if o.Unused == 0 {
		o.Unused = defaultUnused
	}
	if o.LockDir == "" {
		o.LockDir = LockDir
	}
	conn, err := rtnl.Dial(o.Namespace)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	handle, err := rtnl.NewHandle(o.Namespace)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	ioctl, err := rtnl.Datagram(o.Namespace)
	if err != nil {
		handle.Close()
		return nil, errors.Join(fmt.Errorf("open socket for device settings: %w", err), conn.Close())
	}
	n := &Netlink{options: o, conn: conn, handle: handle}
	n.links = &netlinkLinks{conn: conn, handle: handle, namespace: o.Namespace, ioctl: ioctl, watch: n.refilter}
	n.reconciler = newReconciler(o.Log, o.Scope, netlinkTables{conn, handle, o.Namespace, o.LockDir}.edge(n.links))
	return n, nil
}

// Close releases the sockets. Apply and Run must have returned.
func (n *Netlink) Close() error {
	n.handle.Close()
	return errors.Join(n.conn.Close(), n.links.ioctl.Close())
}

// The groups whose events can be about us.
func groups() []int {
	return []int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
	}
}

// reopenAfter is how long Run waits when the event socket cannot be opened or
// breaks.
const reopenAfter = time.Second

// Run follows the events of the kernel until ctx ends: it answers L3 misses and
// calls changed, which must not block, when somebody else may have changed what
// is ours. The next Apply then lists the tables.
func (n *Netlink) Run(ctx context.Context, changed func()) error {
	q := &misses{r: n.reconciler, queue: make(chan Miss, missQueue)}
	var others sync.WaitGroup
	others.Go(func() { q.run(ctx) })
	others.Go(func() { n.keepOn(ctx, "misses", func() error { return n.followMisses(ctx, q) }) })
	others.Go(func() { n.expireUnused(ctx) })
	defer others.Wait()
	n.keepOn(ctx, "events", func() error { return n.follow(ctx, changed) })
	return ctx.Err()
}

// keepOn runs follow again whenever it breaks, until ctx ends.
func (n *Netlink) keepOn(ctx context.Context, what string, follow func() error) {
	for {
		err := follow()
		if ctx.Err() != nil {
			return
		}
		n.log.Warn("messages of the kernel interrupted, will listen again", "about", what, "err", err)
		if wait.For(ctx, reopenAfter) != nil {
			return
		}
	}
}

// follow listens on one socket until it breaks or ctx ends.
func (n *Netlink) follow(ctx context.Context, changed func()) error {
	events, err := rtnl.Listen(n.options.Namespace, n.options.EventBuffer, groups()...)
	if err != nil {
		return fmt.Errorf("listen for kernel events: %w", err)
	}
	defer func() { _ = events.Close() }()
	n.setSocket(&n.events, events)
	defer n.setSocket(&n.events, nil)
	if err := n.refilter(); err != nil {
		return err
	}
	// What happened before is unknown.
	n.Invalidate()
	changed()
	for {
		err := events.Read(ctx, func(m rtnl.Message) { n.event(m, changed) })
		switch {
		case errors.Is(err, rtnl.ErrOverrun):
			n.counters.overruns.Add(1)
			n.log.Info("kernel events lost, comparing everything")
			n.Invalidate()
			changed()
		case err != nil:
			return err
		}
	}
}

// event acts on one message. It is quick: what takes long is left to others.
func (n *Netlink) event(m rtnl.Message, changed func()) {
	if n.isTampering(m, n.links) {
		n.counters.tampering.Add(1)
		n.Invalidate()
		changed()
	}
}

func (n *Netlink) setSocket(at **rtnl.Events, e *rtnl.Events) {
	n.mu.Lock()
	defer n.mu.Unlock()
	*at = e
}

// refilter makes only events of the watched devices pass, beside those of
// routes: of routes of others only while one of them is in the way.
func (n *Netlink) refilter() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	indexes, removals := n.cache.subscription()
	return errors.Join(refilter(n.events, eventFilter(n.conn.Port(), indexes, removals)), refilter(n.questions, missFilter(indexes)))
}

func refilter(e *rtnl.Events, program []bpf.Instruction) error {
	if e == nil {
		return nil
	}
	err := e.Filter(program)
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
