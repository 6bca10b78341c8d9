package main

import (
	"flannel/subnet"
	"flannel/subnet/etcd"
)

// newManager opens the store of leases that the flags name.
func (d *daemon) newManager(getenv func(string) string) (subnet.Manager, error) {
	o := d.options
	if o.kubeSubnetMgr {
		return d.newKubeManager(getenv)
	}
	return etcd.New(etcd.Options{
		Endpoints:   o.endpoints(),
		Prefix:      o.etcdPrefix,
		KeyFile:     o.etcdKeyFile,
		CertFile:    o.etcdCertFile,
		CAFile:      o.etcdCAFile,
		Username:    o.etcdUsername,
		Password:    o.etcdPassword,
		RenewMargin: o.renewMargin(),
		Log:         d.log,
		Check:       checkConfig,
		Waiting:     d.waitingFor,
		Reachable:   d.storeReachable,
		Conflict:    d.recordConflict,
	})
}
