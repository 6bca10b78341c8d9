package kube

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"flannel/internal/loop"
)

const kubeconfigText = `{"apiVersion": "v1", "kind": "Config", "current-context": "c",
	"contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
	"clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1:6443"}}],
	"users": [{"name": "u", "user": {"token": "first"}}]}`

// TestAccessChangedWaitsForAFileThatCanBeUsed replaces a kubeconfig by way of
// one that is half written and none at all.
func TestAccessChangedWaitsForAFileThatCanBeUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		o := Options{Kubeconfig: filepath.Join(dir, "kubeconfig"), NetConfigPath: filepath.Join(dir, "net-conf.json"), AnnotationPrefix: prefix}
		put := func(file, text string) {
			t.Helper()
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		put(o.Kubeconfig, kubeconfigText)
		put(o.NetConfigPath, `{"Network": "10.5.0.0/16"}`)
		m, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		defer m.client.close()
		result := make(chan error, 1)
		go func() { result <- m.AccessChanged(t.Context()) }()
		still := func(what string) {
			t.Helper()
			if err := loop.Wait(t.Context(), time.Minute); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-result:
				t.Fatalf("%s counts as a change: %v", what, err)
			default:
			}
		}
		still("nothing")
		put(o.Kubeconfig, kubeconfigText[:100])
		still("half a file")
		if err := os.Remove(o.Kubeconfig); err != nil {
			t.Fatal(err)
		}
		still("no file")
		put(o.Kubeconfig, kubeconfigText)
		still("the same file")
		put(o.Kubeconfig, kubeconfigText+"\n")
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}
