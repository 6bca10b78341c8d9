package main

import (
	"os"
	"strings"

	"flannel/doctor/gather"
	"flannel/subnet/etcd"
	"flannel/subnet/kube"
)

// accessOf returns how a daemon with this command line and environment reaches its
// store.
func accessOf(args, environ []string) (gather.Access, error) {
	o, err := parseFlags(args, environ)
	if err != nil {
		return gather.Access{}, err
	}
	if !o.kubeSubnetMgr {
		config, err := etcd.TLS(etcd.Options{KeyFile: o.etcdKeyFile, CertFile: o.etcdCertFile, CAFile: o.etcdCAFile})
		a := gather.Access{Name: "etcd", TLS: config, Page: "/version"}
		for _, at := range o.endpoints() {
			scheme, _, found := strings.Cut(at, "://")
			switch {
			case !found && config == nil:
				at = "http://" + at
			case !found:
				at = "https://" + at
			case !strings.HasPrefix(scheme, "http"):
				continue // a socket of this host
			}
			a.URLs = append(a.URLs, at)
		}
		return a, err
	}
	getenv := func(name string) string {
		value, _ := lookup(environ, name)
		return value
	}
	host, _ := os.Hostname()
	a := gather.Access{Name: "the API server", Page: "/version"}
	if name := kube.NodeName(getenv, host); name != "" {
		a.Page = "/api/v1/nodes/" + name
	}
	at, config, token, err := kube.Access(kube.Options{Kubeconfig: o.kubeConfigFile, APIURL: o.kubeAPIURL})
	a.URLs, a.TLS, a.Token = []string{at}, config, token
	return a, err
}
