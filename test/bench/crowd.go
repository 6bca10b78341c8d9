package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/lab"
)

// device is the overlay's device with the default VNI.
const device = "flannel.1"

// crowd is one host in a network of very many peers, which exist as records in
// etcd only.
type crowd struct {
	lab   *lab.Lab
	host  *lab.Host
	store *store
	// peers is how many records there are.
	peers int
}

// getCrowd returns the large network. It stays until the end of the run.
func (b *bench) getCrowd(ctx context.Context) (*crowd, error) {
	if b.crowd != nil {
		return b.crowd, nil
	}
	var err error
	b.crowd, err = b.newCrowd(ctx, lab.Options{Network: crowdConfig}, "vxlan", b.peers)
	return b.crowd, err
}

// newCrowd makes a large network of one host, with a backend of that type.
func (b *bench) newCrowd(ctx context.Context, o lab.Options, backend string, peers int) (*crowd, error) {
	o.Hosts, o.Binaries = 1, b.binaries
	l, err := lab.New(ctx, o)
	if err != nil {
		return nil, err
	}
	c := &crowd{lab: l, host: l.Hosts[0], peers: peers}
	if c.store, err = openStore(ctx, l, backend, o.Families == lab.Dual); err == nil {
		err = c.store.putPeers(ctx, 0, peers)
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// getJoined returns the large network with a daemon that knows all peers and
// has nothing to do.
func (b *bench) getJoined(ctx context.Context) (*crowd, error) {
	c, err := b.getCrowd(ctx)
	if err != nil || c.running() {
		return c, err
	}
	if _, err := c.join(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *crowd) close() error {
	var err error
	if c.store != nil {
		err = c.store.Close()
	}
	return errors.Join(err, c.lab.Close())
}

func (c *crowd) daemon() process { return process(c.host.Flanneld().PID()) }

// running reports whether the daemon was started and has not ended.
func (c *crowd) running() bool {
	ended := c.host.Flanneld().Exited()
	if ended == nil {
		return false
	}
	select {
	case <-ended:
		return false
	default:
		return true
	}
}

// join starts the daemon and returns the time from there until the kernel has
// the last entry.
func (c *crowd) join(ctx context.Context) (time.Duration, error) {
	// The summary also counts the device's own address.
	return c.startUntil(ctx, c.peers+1, c.complete)
}

// startUntil starts the daemon and returns the time from there until the kernel
// has this many routes more, which are written last. Then complete makes sure.
func (c *crowd) startUntil(ctx context.Context, routes int, complete func() error) (time.Duration, error) {
	before, err := routesOf(c.host)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := c.host.StartFlanneld(); err != nil {
		return 0, err
	}
	daemon := c.daemon()
	var took time.Duration
	err = until(ctx, "all routes in the kernel", 2*time.Millisecond, func() (bool, error) {
		n, err := daemon.routes()
		took = time.Since(start)
		return n >= before+routes, err
	})
	if err == nil {
		err = complete()
	}
	if err == nil {
		err = c.host.WaitReady(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, c.host.Flanneld().Tail(5))
	}
	return took, nil
}

// routesOf counts the routes of a host through a thread inside it.
func routesOf(h *lab.Host) (n int, err error) {
	err = h.Do(func() (err error) {
		n, err = process(unix.Gettid()).routes()
		return err
	})
	return n, err
}

// complete makes sure that the kernel holds all entries of all peers.
func (c *crowd) complete() error {
	link, err := c.host.Interface(device)
	if err != nil {
		return err
	}
	dev := link.Attrs().Index
	routes, err := c.host.Handle.RouteListFiltered(unix.AF_INET,
		&netlink.Route{LinkIndex: dev, Protocol: kernel.RouteProtocol}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	neighbors, err := c.host.Handle.NeighList(dev, unix.AF_INET)
	if err != nil {
		return fmt.Errorf("list neighbors: %w", err)
	}
	fdb, err := c.host.Handle.NeighList(dev, unix.AF_BRIDGE)
	if err != nil {
		return fmt.Errorf("list FDB entries: %w", err)
	}
	if len(routes) != c.peers || len(neighbors) < c.peers || len(fdb) != c.peers {
		return fmt.Errorf("%d routes, %d neighbors, %d FDB entries for %d peers",
			len(routes), len(neighbors), len(fdb), c.peers)
	}
	return nil
}

// leave ends the daemon and removes what it has left behind, so that the next
// join is that of a node nobody has seen before.
func (c *crowd) leave(ctx context.Context) error {
	if !c.running() {
		return nil
	}
	own, err := c.host.Subnet()
	if err != nil {
		return err
	}
	if err := c.host.Stop(); err != nil {
		return err
	}
	if _, err := c.host.Exec(ctx, "ip", "link", "del", device); err != nil {
		return err
	}
	if _, err := c.host.Exec(ctx, "rm", "-f", lab.DefaultSubnetFile); err != nil {
		return err
	}
	return c.store.forget(ctx, keyName(own[ipfam.V4].String()))
}
