package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"k8s.io/klog/v2"

	"flannel/internal/loop"
	"flannel/internal/version"
	"flannel/subnet"
	"flannel/subnet/kube"
)

// errStartOver ends a daemon that is to be built and run again, because what
// it was built from has changed.
var errStartOver = errors.New("start over")

// newKubeManager takes leases from Node objects.
func (d *daemon) newKubeManager(getenv func(string) string) (subnet.Manager, error) {
	o := d.options
	klog.SetSlogLogger(d.log)
	hostname, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("host name: %w", err)
	}
	m, err := kube.New(kube.Options{
		Kubeconfig:            o.kubeConfigFile,
		APIURL:                o.kubeAPIURL,
		AnnotationPrefix:      o.kubeAnnotationPrefix,
		NetConfigPath:         o.netConfigPath,
		Getenv:                getenv,
		Hostname:              hostname,
		Version:               version.String(),
		SetNetworkUnavailable: o.setNodeNetworkUnavailable,
		Log:                   d.log,
		Check:                 checkConfig,
		Reachable:             d.storeReachable,
		Waiting:               d.waiting.Set,
		Conflict:              d.recordConflict,
		AddLoop:               d.health.AddLoop,
	})
	if err != nil {
		return nil, err
	}
	d.notify.onReady = m.NetworkReady
	d.events.post = m.PostEvent
	d.background = append(d.background, m.Run,
		d.startOverAfter(m.OverridesChanged, "the public address that the Node gives"),
		d.startOverAfter(m.FamiliesChanged, "the families of the Node's pod CIDRs"),
		d.startOverAfter(m.AccessChanged, "the kubeconfig or the CA of the API server"))
	return d.warmManager(m, o.kubeAPIURL, o.kubeConfigFile, cmp.Or(getenv("NODE_NAME"), hostname)), nil
}

// startOverAfter builds and runs the daemon again when changed returns, but not
// before startOverFrom.
func (d *daemon) startOverAfter(changed func(context.Context) error, what string) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := changed(ctx); err != nil {
			return err
		}
		if err := loop.Wait(ctx, time.Until(d.startOverFrom)); err != nil {
			return err
		}
		d.log.Info("a setting that needs a new start has changed, starting over", "what", what)
		return errStartOver
	}
}
