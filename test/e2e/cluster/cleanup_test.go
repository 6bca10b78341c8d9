package cluster

import (
	"fmt"
	"strings"
	"testing"

	"flannel/lab"
)

// TestCleanupOfACluster applies the manifest while the daemons still run, which
// must not remove anything, and then deletes these.
func TestCleanupOfACluster(t *testing.T) {
	c := newCluster(t)
	c.kubectl(t, "apply", "--filename="+manifest)
	for _, h := range c.Hosts {
		lab.Must(t, h.Worker.StartProxy())
	}
	c.kubectl(t, "--namespace=kube-flannel", "rollout", "status", "daemonset/kube-flannel-ds", "--timeout=4m")
	c.kubectl(t, "apply", "--filename=../../../Documentation/kube-flannel-cleanup.yml")
	soon(t, func() (string, bool) {
		out, err := c.k.Kubectl(t.Context(), "--namespace=kube-flannel-cleanup", "logs", "--container=cleanup", "--selector=k8s-app=flannel-cleanup")
		return fmt.Sprintln(out, err), strings.Contains(out, "a daemon is running")
	})
	c.onEvery(t, contains("flannel.1"), "ip", "-brief", "link")
	c.kubectl(t, "delete", "--filename="+manifest)
	c.kubectl(t, "--namespace=kube-flannel-cleanup", "rollout", "status", "daemonset/kube-flannel-cleanup", "--timeout=4m")
	c.onEvery(t, lacks("flannel"), "ip", "-brief", "link")
	c.onEvery(t, lacks("flannel"), "ls", "/etc/cni/net.d")
	c.onEvery(t, lacks("subnet"), "ls", "/run/flannel")
	c.onEvery(t, lacks("FLANNEL"), "iptables-nft-save")
	c.onEvery(t, func(out string) bool { return out == "" }, "ip", "route", "show", "proto", "70")
	if out := c.kubectl(t, "get", "nodes", "--output=yaml"); strings.Contains(out, "flannel.alpha.coreos.com") {
		t.Errorf("annotations are left:\n%s", out)
	}
}
