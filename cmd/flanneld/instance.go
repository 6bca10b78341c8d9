package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"flannel/internal/logonce"
	"flannel/internal/loop"
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

// lockEvery is how often an instance that another daemon holds is asked for again.
const lockEvery = time.Second

// lock waits until no other daemon on this host runs as the same instance: two
// would take each other's devices.
func (d *daemon) lock(ctx context.Context) (io.Closer, error) {
	failures := logonce.NewFailures(d.log, slog.LevelError)
	for {
		lock, err := kernel.LockInstance(d.lockDir, d.options.instance())
		if !errors.Is(err, kernel.ErrInstanceLocked) {
			failures.OK("taking the instance lock")
			d.instance.OK()
			if err != nil {
				d.log.Warn("nothing keeps a second flanneld of this overlay from running on this host", "err", err)
				return io.NopCloser(nil), nil
			}
			return lock, nil
		}
		err = fmt.Errorf("another flanneld on this host uses %s: stop it, or give this one its own prefix, VNI and subnet file",
			d.options.instance())
		d.instance.Fail(err.Error())
		failures.Fail("taking the instance lock", err)
		if err := loop.Wait(ctx, lockEvery); err != nil {
			return nil, err
		}
	}
}
