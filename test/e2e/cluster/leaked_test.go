package cluster

import (
	"fmt"
	"strings"
	"testing"

	"flannel/lab"
)

// crowd are pods on the first node, more than half of those that it has
// addresses for.
const crowd = `{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "crowd"}, "spec": {
	"replicas": %d, "selector": {"matchLabels": {"app": "crowd"}}, "template": {
		"metadata": {"labels": {"app": "crowd"}},
		"spec": {"nodeSelector": {"kubernetes.io/hostname": %q}, "tolerations": [{"operator": "Exists"}], "containers": [{
			"name": "testpod", "image": "docker.io/library/testpod:lab", "imagePullPolicy": "Never",
			"command": ["/bin/testpod", "serve", ":8080"]}]}}}}`

// TestPodsOfACrashedNodeLeakNoAddresses kills the pods of a node and all that
// its runtime knows of them, again and again: nobody detaches them, and the
// node's few addresses must do.
func TestPodsOfACrashedNodeLeakNoAddresses(t *testing.T) {
	const podCIDR, pods, crashes = "10.244.250.0/28", 8, 2
	c := newCluster(t)
	h := c.Hosts[0]
	crash := func() {
		t.Helper()
		lab.Must(t, h.Worker.Crash(t.Context()))
	}
	start := func() {
		t.Helper()
		lab.Must(t, h.Worker.Start(t.Context()))
		lab.Must(t, h.Worker.StartProxy())
	}
	crash()
	lab.Must(t, c.k.API.DeleteNode(t.Context(), h.Name))
	lab.Must(t, c.k.API.CreateNode(t.Context(), h.Name, podCIDR))
	start()
	c.kubectl(t, "apply", "--filename="+manifest)
	lab.Must(t, c.k.Apply(t.Context(), fmt.Sprintf(crowd, pods, h.Name)))
	c.crowdRuns(t, h, pods)
	for range crashes {
		crash()
		start()
		c.crowdRuns(t, h, pods)
	}
	out, err := h.Exec(t.Context(), "ls", "/var/lib/cni/networks/cbr0")
	lab.Must(t, err)
	if n := strings.Count(out, "10.244."); n < pods {
		t.Errorf("%d addresses are reserved for %d pods", n, pods)
	}
}

// crowdRuns waits until the pods are ready and each has a network namespace.
func (c *cluster) crowdRuns(t *testing.T, h *lab.Host, want int) {
	t.Helper()
	soon(t, func() (string, bool) {
		pods, err := c.k.API.Pods(t.Context(), "default", "app=crowd")
		if err != nil {
			return err.Error(), false
		}
		ready := 0
		for _, p := range pods {
			if p.Ready() {
				ready++
			}
		}
		namespaces, err := h.Exec(t.Context(), "ls", "/run/netns")
		n := strings.Count(namespaces, "cni-")
		return fmt.Sprintf("%d pods are ready, %d namespaces of pods, %v", ready, n, err), ready == want && n >= want
	})
}
