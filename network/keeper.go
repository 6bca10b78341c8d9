package network

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"

	"flannel/internal/ipfam"
	"flannel/internal/logonce"
	"flannel/internal/loop"
	"flannel/subnet"
)

// keepLease keeps this node's lease: it publishes it again if the uplink's
// addresses change, and acquires another if it is lost.
func (n *Network) keepLease(ctx context.Context) error {
	for {
		own := *n.own.Load()
		if err := n.keepUntilChange(ctx, own); err != nil {
			return err
		}
		if err := n.acquire(ctx, own.Subnet); err != nil {
			return err
		}
	}
}

// acquire makes a lease this node's own, the wanted one if possible. It tries
// until there is one; an error means that ctx has ended.
func (n *Network) acquire(ctx context.Context, want ipfam.Pair[netip.Prefix]) error {
	var retry loop.Backoff
	failures := logonce.NewFailures(n.Log, slog.LevelError)
	for {
		host, _ := n.uplink.Current()
		own, err := n.Manager.Acquire(ctx, n.backend.Attrs(host.Uplink), want)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failures.Fail("acquiring a lease", err)
		if err == nil {
			n.setOwn(own)
			return nil
		}
		n.checks.lease.Fail(err.Error())
		if err := retry.Wait(ctx); err != nil {
			return err
		}
	}
}

// setOwn publishes the lease inside the program.
func (n *Network) setOwn(own subnet.Lease) {
	before := n.own.Swap(&own)
	n.checks.lease.OK()
	if n.filter != nil {
		n.filter.SetSubnet(own.Subnet)
	}
	if !n.needs.Peers {
		n.snapshot.Store(&subnet.Snapshot{Leases: []*subnet.Lease{&own}})
	}
	if before == nil || before.Subnet != own.Subnet || before.Attrs != own.Attrs {
		n.Log.Info("lease acquired", "subnet", ipfam.Join(own.Subnet), "public", ipfam.Join(own.Attrs.PublicIP))
	}
	n.wake()
}

// keepUntilChange keeps the lease until it is lost or its attributes are out of
// date; then it returns nil. An error means that the daemon ends.
func (n *Network) keepUntilChange(ctx context.Context, own subnet.Lease) error {
	host, _ := n.uplink.Current()
	from := host.Uplink.Addr
	keeping, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1) // closed by nobody: one send
	go func() { done <- n.Manager.Keep(keeping, own, n.setOwn) }()
	for {
		select {
		case err := <-done:
			return n.keepEnded(ctx, own, err)
		case <-n.attrs:
			host, _ := n.uplink.Current()
			if host.Uplink.Addr != from {
				from = host.Uplink.Addr
				n.Manager.Reconnect()
			}
			if n.backend.Attrs(host.Uplink) == own.Attrs {
				continue
			}
			cancel()
			return n.keepEnded(ctx, own, <-done)
		}
	}
}

func (n *Network) keepEnded(ctx context.Context, own subnet.Lease, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, subnet.ErrLeaseLost):
		n.checks.lease.Fail("the subnet belongs to another node; acquiring another subnet")
		n.Log.Warn("lease lost, acquiring another", "subnet", ipfam.Join(own.Subnet), "err", err)
	case err != nil && !errors.Is(err, context.Canceled):
		n.Log.Warn("lease not kept, acquiring it again", "err", err)
	}
	return nil
}
