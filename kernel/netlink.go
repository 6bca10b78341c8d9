package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"flannel/kernel/rtnl"
)

// Options is what New needs.
type Options struct {
	Log   *slog.Logger
	Scope Scope
	// Namespace is the open network namespace to work in; zero is the current
	// one.
	Namespace int
	// LockDir is where locks of instances are looked for; empty means LockDir.
	LockDir string
	// EventBuffer is how many bytes of events the kernel keeps until they are
	// read; zero means a buffer that is large enough for a flushed table.
	EventBuffer int
	// Unused is the time without traffic after which the entries of an
	// on-demand peer are removed; zero means five minutes.
	Unused time.Duration
	// Installed is called when the entries of an on-demand peer are put because
	// the kernel has asked for them. It must not block; nil calls nothing.
	Installed func(subnet netip.Prefix)
}

const defaultEventBuffer = 4 << 20

// New returns a Reconciler over the kernel of this host. Close releases its
// sockets.
func New(o Options) (*Reconciler, error) {
	if o.EventBuffer == 0 {
		o.EventBuffer = defaultEventBuffer
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
	t := netlinkTables{conn, handle}
	e := &netlinkEvents{log: o.Log, namespace: o.Namespace, port: conn.Port(), buffer: o.EventBuffer, networks: o.Scope.Networks}
	r := NewReconciler(o.Log, o.Scope, Backing{
		Links:      &netlinkLinks{conn: conn, handle: handle, namespace: o.Namespace, ioctl: ioctl},
		Addrs:      Table[AddrKey, struct{}]{TableAddresses, t.listAddrs, t.putAddrs, t.delAddrs},
		FDB:        Table[FDBKey, FDBValue]{TableFDB, t.listFDB, t.putFDB, t.delFDB},
		Neighbors:  Table[NeighborKey, MAC]{TableNeighbors, t.listNeighbors, t.putNeighbors, t.delNeighbors},
		Routes:     Table[RouteKey, RouteValue]{TableRoutes, t.listRoutes, t.putRoutes, t.delRoutes},
		FindRoutes: t.findRoutes,
		FDBAges:    t.fdbAges,
		Release:    t.release,
		Host:       t.readHost,
		Alive:      func(instance string) bool { return alive(o.LockDir, o.Namespace, instance) },
		Watch:      e.watch,
		Follow:     e.follow,
		Close: func() error {
			handle.Close()
			return errors.Join(conn.Close(), ioctl.Close())
		},
	})
	if o.Unused != 0 {
		r.unused = o.Unused
	}
	if o.Installed != nil {
		r.installed = o.Installed
	}
	return r, nil
}
