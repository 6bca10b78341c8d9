package kube

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"flannel/internal/testkit/eventually"
	"flannel/internal/testkit/kubeplane"
	"flannel/lab"
)

// TestWhatTheNodeIsCalled runs three nodes that find their Node in each of the
// ways that there are.
func TestWhatTheNodeIsCalled(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 3})
	byName, byPod, byHost := l.Hosts[0], l.Hosts[1], l.Hosts[2]
	_, err := l.Kubernetes.API.Do(t.Context(), http.MethodPost, "/api/v1/namespaces/default/pods", kubeplane.JSON,
		`{"metadata":{"name":"flanneld"},"spec":{"nodeName":"`+byPod.Name+`","containers":[{"name":"c","image":"i"}]}}`)
	lab.Must(t, err)
	_, err = byHost.Exec(t.Context(), "hostname", "HOST3")
	lab.Must(t, err)
	// None of the Nodes is meant.
	for env, want := range map[string]string{
		"NODE_NAME=HOST1": `there is no Node "HOST1", but host1: set NODE_NAME to the name of this node's Node; see: kubectl get nodes`,
		"NODE_NAME=":      `there is no Node "other": the kubelet creates it when it registers; if the Node has another name, set NODE_NAME; see: kubectl get nodes`,
	} {
		shell(t, byName, "hostname other")
		d, err := byName.StartDaemon(lab.DaemonOptions{Env: []string{env}})
		lab.Must(t, err)
		says(t, byName, "/readyz", want)
		doctorReports(t, byName, "subnet-file: /run/flannel/subnet.env is missing: ", want)
		lab.Must(t, d.Stop())
	}
	for h, env := range map[*lab.Host][]string{
		// NODE_NAME wins, and nobody asks for the pod.
		byName: {"NODE_NAME=" + byName.Name, "POD_NAME=none", "POD_NAMESPACE=default"},
		byPod:  {"NODE_NAME=", "POD_NAME=flanneld", "POD_NAMESPACE=default"},
		byHost: {"NODE_NAME="},
	} {
		d, err := h.StartDaemon(lab.DaemonOptions{Env: env})
		lab.Must(t, err)
		lab.Must(t, d.WaitReady(limited(t)))
		n, err := l.Kubernetes.API.GetNode(t.Context(), h.Name)
		lab.Must(t, err)
		if got, want := n.Metadata.Annotations[annotation+"public-ip"], h.Addr(0).String(); got != want {
			t.Errorf("the Node of %s says %q, want %q", h.Name, got, want)
		}
	}
}

// secondAddress is an address that an annotation of the Node can name.
const secondAddress = "172.31.1.201"

// withSecondAddress returns a host that has secondAddress too and is ready.
func withSecondAddress(t *testing.T) (*lab.Lab, *lab.Host) {
	t.Helper()
	l := newLab(t, lab.Options{Hosts: 1})
	h := l.Hosts[0]
	shell(t, h, "ip addr add "+secondAddress+"/24 dev "+lab.Uplink)
	lab.Must(t, h.StartFlanneld())
	ready(t, h)
	return l, h
}

// TestStartingOverLeaksNothing changes what the daemon is built from again and
// again: the number of open files stays.
func TestStartingOverLeaksNothing(t *testing.T) {
	waits(t)
	l, h := withSecondAddress(t)
	round := func() {
		for _, address := range []any{secondAddress, nil} {
			annotate(t, l, h, map[string]any{"node-public-ip": address})
			want := h.Addr(0).String()
			if address != nil {
				want = secondAddress
			}
			awaitAnnotation(t, l, h, "public-ip", want)
			ready(t, h)
		}
	}
	round()
	before := openFiles(t, h)
	round()
	round()
	const rebuilds = 4 // each of which would leak one at least
	// Connections end a little later, and some files are opened only after the
	// node is ready.
	eventually.Says(t, func() (string, bool) {
		now := openFiles(t, h)
		return strconv.Itoa(now) + " open files, " + strconv.Itoa(before) + " before", now < before+rebuilds
	})
}

func openFiles(t *testing.T, h *lab.Host) int {
	t.Helper()
	files, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(h.Flanneld().PID()), "fd"))
	lab.Must(t, err)
	return len(files)
}

// TestStartingOverIsPaced lets somebody change what the daemon is built from
// all the time.
func TestStartingOverIsPaced(t *testing.T) {
	waits(t)
	l, h := withSecondAddress(t)
	started := func() int { return countLines(h.Log(), `msg="flanneld starts"`) }
	began := time.Now()
	for i := 0; started() < 4; i++ {
		annotate(t, l, h, map[string]any{"node-public-ip": []any{secondAddress, nil}[i%2]})
	}
	// The first change takes effect at once, two more 5 s after the one before.
	if took := time.Since(began); took < 10*time.Second {
		t.Errorf("built three times within %v", took)
	}
}
