package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"flannel/internal/logging"
	"flannel/internal/wait"
	"flannel/network/kernel"
)

// instance names this daemon's overlay among others on the same host: by where
// its leases are. It is the mark on the devices.
func (o *options) instance() string {
	if o.kubeSubnetMgr {
		return o.kubeAnnotationPrefix
	}
	return o.etcdPrefix
}

// claimEvery is how often a taken instance is asked for again.
const claimEvery = time.Second

// claim waits until no other daemon on this host runs as the same instance: two
// would take each other's devices.
func (d *daemon) claim(ctx context.Context) (io.Closer, error) {
	repeat := logging.NewRepeat(d.log, slog.LevelError)
	for {
		held, err := kernel.Claim(d.options.instance())
		if err == nil {
			d.alone.OK()
			repeat.OK("claim")
			return held, nil
		}
		if !errors.Is(err, kernel.ErrClaimed) {
			return nil, err
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
