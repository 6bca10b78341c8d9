package main

import (
	"cmp"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/net/http/httpproxy"

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
	getenv := func(name string) string {
		value, _ := lookup(environ, name)
		return value
	}
	proxies := proxiesOf(getenv)
	if !o.kubeSubnetMgr {
		config, err := etcd.TLS(etcd.Options{KeyFile: o.etcdKeyFile, CertFile: o.etcdCertFile, CAFile: o.etcdCAFile})
		a := gather.Access{Name: "etcd", TLS: config, Page: "/version", Proxy: func(r *http.Request) (*url.URL, error) {
			// The client of etcd takes the proxy for HTTPS, whatever the scheme.
			return proxies(&url.URL{Scheme: "https", Host: r.URL.Host})
		}}
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
	host, _ := os.Hostname()
	a := gather.Access{Name: "the API server", Page: "/version", Config: o.netConfigPath}
	if name := kube.NodeName(getenv, host); name != "" {
		a.Page = "/api/v1/nodes/" + name
	}
	reach, err := kube.Access(kube.Options{Kubeconfig: o.kubeConfigFile, APIURL: o.kubeAPIURL})
	a.URLs, a.TLS, a.Token, a.Proxy = []string{reach.URL}, reach.TLS, reach.Token, reach.Proxy
	if a.Proxy == nil {
		a.Proxy = func(r *http.Request) (*url.URL, error) { return proxies(r.URL) }
	}
	return a, err
}

// proxiesOf returns which proxy a program with this environment uses for a URL.
func proxiesOf(getenv func(string) string) func(*url.URL) (*url.URL, error) {
	either := func(name string) string { return cmp.Or(getenv(name), getenv(strings.ToLower(name))) }
	c := httpproxy.Config{HTTPProxy: either("HTTP_PROXY"), HTTPSProxy: either("HTTPS_PROXY"), NoProxy: either("NO_PROXY")}
	return c.ProxyFunc()
}
