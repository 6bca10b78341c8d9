// Package cluster tests a real Kubernetes: nodes with kubelet, containerd and
// kube-proxy, on which flanneld is a pod of the project's manifest and image.
package cluster

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"flannel/internal/testkit/assets"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
	"flannel/lab/sandbox"
)

func TestMain(m *testing.M) { lab.Main(m) }

// waitLimit bounds every wait. Programs of Kubernetes back off for up to a
// minute, and share the processors with other tests.
const waitLimit = 4 * time.Minute

// before are the images that stand in for flannel's; after is ours by a name that
// no kubelet pulls anew.
var (
	before = []string{"flannel:before", "flannel-cni-plugin:before"}
	after  = "flannel:after"
)

// programs builds what is in the images.
var programs = sync.OnceValues(lab.BuildPrograms)

// images builds the images once.
var images = sync.OnceValues(func() ([]string, error) {
	p, err := programs()
	if err != nil {
		return nil, err
	}
	iptables, err := assets.Path("iptables/" + runtime.GOARCH + "/usr/sbin/xtables-nft-multi")
	if err != nil {
		return nil, err
	}
	p.IPTables = filepath.Join(iptables, "../../..")
	return lab.WriteImages(filepath.Dir(p.Flanneld), p, append(before, after)...)
})

// cluster is a cluster that several tests use one after the other.
type cluster struct {
	*lab.Lab
	k *lab.Kubernetes
}

// newCluster returns two nodes without network and without kube-proxy.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	if os.Geteuid() != 0 || !sandbox.Active() {
		t.Skip("nodes that run pods need root")
	}
	binaries, err := lab.Servers()
	lab.Must(t, err)
	archives, err := images()
	lab.Must(t, err)
	l := lab.ForTest(t, lab.Options{
		Hosts: 2, Families: lab.Dual, Kubelets: true, NoProxy: true, Binaries: binaries, Images: archives,
	})
	c := &cluster{l, l.Kubernetes}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.describe(context.Background()))
		}
	})
	return c
}

// soon waits until check holds; its text is what was seen instead.
func soon(t *testing.T, check func() (string, bool)) {
	t.Helper()
	eventually.Within(t, waitLimit, check)
}
