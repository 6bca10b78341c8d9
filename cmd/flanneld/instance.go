package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/logonce"
	"flannel/internal/wait"
	"flannel/kernel"
)

// instance names this daemon's overlay among others on the same host: by where
// its leases are. It is the mark on the devices.
func (o *options) instance() string {
	if o.kubeSubnetMgr {
		return o.kubeAnnotationPrefix
	}
	return o.etcdPrefix
}

const (
	// claimEvery is how often a taken instance is asked for again.
	claimEvery = time.Second
	// nameWait is how long a daemon of an earlier version is waited for. Those
	// have no lock, and any user can hold the name of their socket.
	nameWait = 30 * time.Second
)

// claim waits until no other daemon on this host runs as the same instance: two
// would take each other's devices.
func (d *daemon) claim(ctx context.Context) (io.Closer, error) {
	held, err := d.lock(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.announce(ctx, held); err != nil {
		return nil, errors.Join(err, held.Close())
	}
	d.alone.OK()
	return held, nil
}

func (d *daemon) lock(ctx context.Context) (*kernel.InstanceLock, error) {
	repeat := logonce.NewFailures(d.log, slog.LevelError)
	for {
		held, err := kernel.LockInstance(d.lockDir, d.options.instance())
		if err == nil {
			repeat.OK("claim")
			return held, nil
		}
		if !errors.Is(err, kernel.ErrInstanceLocked) {
			d.log.Warn("nothing keeps a second flanneld of this overlay from running on this host", "err", err)
			return kernel.WithoutLock(d.options.instance()), nil
		}
		err = fmt.Errorf("another flanneld on this host uses %s: stop it, or give this one its own prefix, VNI and subnet file",
			d.options.instance())
		d.alone.Fail(err.Error())
		repeat.Fail("claim", err)
		if err := wait.For(ctx, claimEvery); err != nil {
			return nil, err
		}
	}
}

// announce takes the name of the instance for daemons of earlier versions. An
// error means that ctx has ended.
func (d *daemon) announce(ctx context.Context, held *kernel.InstanceLock) error {
	logged := false
	for until := time.Now().Add(nameWait); ; {
		err := held.Announce()
		taken := errors.Is(err, unix.EADDRINUSE)
		switch {
		case err != nil && !taken:
			d.log.Warn("daemons of earlier versions do not see this one", "err", err)
			return nil
		case err == nil || !time.Now().Before(until):
			return nil
		}
		if !logged {
			logged = true
			d.alone.Fail(err.Error())
			d.log.Warn("the name of this instance is taken although its lock is free; starting without the name",
				"err", err, "in", nameWait, "command", "ss -xap | grep "+kernel.SocketName(d.options.instance()))
		}
		if err := wait.For(ctx, claimEvery); err != nil {
			return err
		}
	}
}
