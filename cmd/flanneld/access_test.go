package main

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// TestTheProxyOfTheDaemon is that of its environment, and of its kubeconfig.
func TestTheProxyOfTheDaemon(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://192.0.2.99:1")
	t.Setenv("HTTP_PROXY", "http://192.0.2.99:1")
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	const text = `{"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
		"users": [{"name": "u", "user": {"token": "t"}}], "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1:6443", "proxy-url": "http://192.0.2.8:3128"}}]}`
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	const proxy = "HTTPS_PROXY=http://192.0.2.7:3128"
	for _, tt := range []struct {
		name          string
		args, environ []string
		want          string
	}{
		{"none", []string{"--etcd-endpoints=http://192.0.2.1:2379"}, nil, ""},
		{"one for etcd, whatever the scheme", []string{"--etcd-endpoints=http://192.0.2.1:2379"}, []string{proxy}, "http://192.0.2.7:3128"},
		{"not for this endpoint", []string{"--etcd-endpoints=http://192.0.2.1:2379"}, []string{proxy, "no_proxy=192.0.2.0/24"}, ""},
		{"one for the API server", []string{"--kube-subnet-mgr", "--kube-api-url=https://192.0.2.1:6443"}, []string{proxy}, "http://192.0.2.7:3128"},
		{"only one for HTTP", []string{"--kube-subnet-mgr", "--kube-api-url=https://192.0.2.1:6443"}, []string{"http_proxy=http://192.0.2.7:3128"}, ""},
		{"that of the kubeconfig", []string{"--kube-subnet-mgr", "--kubeconfig-file=" + kubeconfig}, []string{proxy}, "http://192.0.2.8:3128"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := accessOf(tt.args, tt.environ)
			if err != nil || len(a.URLs) != 1 {
				t.Fatal(a.URLs, err)
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.URLs[0], nil)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if through, err := a.Proxy(r); err != nil {
				t.Error(err)
			} else if through != nil {
				got = through.String()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
