package main

import (
	"fmt"
	"strings"
	"time"

	"flannel/subnet"
	"flannel/subnet/etcd"
	"flannel/subnet/warm"
)

// newManager opens the store of leases that the flags name.
func (d *daemon) newManager(getenv func(string) string) (subnet.Manager, error) {
	o := d.options
	if o.kubeSubnetMgr {
		return d.newKubeManager(getenv)
	}
	m, err := etcd.New(etcd.Options{
		Endpoints:   o.endpoints(),
		Prefix:      o.etcdPrefix,
		KeyFile:     o.etcdKeyFile,
		CertFile:    o.etcdCertFile,
		CAFile:      o.etcdCAFile,
		Username:    o.etcdUsername,
		Password:    o.etcdPassword,
		RenewMargin: o.renewMargin(),
		Log:         d.log,
		State:       d.state,
		Check:       checkConfig,
		Waiting:     d.waiting.Set,
		Conflict:    d.recordConflict,
		Watching:    d.health.AddLoop("watch"),
		Reachable: func(err error) {
			if err != nil {
				err = fmt.Errorf("cannot be reached: %w", err)
			}
			d.storeReachable(err)
		},
	})
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, m)
	return d.warmManager(m, o.etcdEndpoints), nil
}

// warmManager lets the node start from what it knew last while the store cannot
// be reached; where names the store and this node.
func (d *daemon) warmManager(store warm.Store, where ...string) subnet.Manager {
	if d.state == nil {
		return store
	}
	note := d.health.Note("leases", "")
	m := warm.New(store, warm.Options{
		Log:   d.log,
		Dir:   d.state,
		Where: strings.Join(append(where, d.options.instance()), " "),
		Check: checkConfig,
		Away:  d.storeAway.Load,
		Running: func(since time.Time) {
			if since.IsZero() {
				note.OK()
				return
			}
			note.Fail("running from state of " + since.Format(time.RFC3339) + "; the store has not answered since the start")
		},
	})
	d.background = append(d.background, m.Run, d.startOverAfter(m.Changed, "the network configuration or this node's public address, in the store"))
	return m
}
