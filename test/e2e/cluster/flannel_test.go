package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"flannel/internal/testkit/kubeplane"
	"flannel/lab"
)

const (
	docs     = "../../../Documentation"
	manifest = docs + "/kube-flannel.yml"
	variants = docs + "/kustomization"
)

// kubectl runs kubectl, which must neither fail nor warn.
func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.k.Kubectl(t.Context(), append([]string{"--warnings-as-errors"}, args...)...)
	lab.Must(t, err)
	return out
}

// daemons returns the pods of flannel.
func (c *cluster) daemons(ctx context.Context) ([]kubeplane.Pod, error) {
	return c.k.API.Pods(ctx, "kube-flannel", "app=flannel")
}

// renewed runs a step that replaces the pods of flannel, and waits until every
// node has another one that is ready.
func (c *cluster) renewed(t *testing.T, step func()) {
	t.Helper()
	old, err := c.daemons(t.Context())
	lab.Must(t, err)
	step()
	soon(t, func() (string, bool) {
		pods, err := c.daemons(t.Context())
		if err != nil {
			return err.Error(), false
		}
		fresh := 0
		for _, p := range pods {
			if p.Ready() && !slices.ContainsFunc(old, func(o kubeplane.Pod) bool { return o.Metadata.UID == p.Metadata.UID }) {
				fresh++
			}
		}
		return fmt.Sprint(pods), fresh == len(c.Hosts) && len(pods) == fresh
	})
}

// nothingFound runs doctor and status in the pods of flannel, if there are any, as the
// documentation has it.
func (c *cluster) nothingFound(t *testing.T) {
	t.Helper()
	pods, err := c.daemons(t.Context())
	lab.Must(t, err)
	for _, p := range pods {
		for command, want := range map[string]string{"doctor": "nothing found", "status": "daemon      ready\n"} {
			out, err := c.k.Kubectl(t.Context(), "exec", "--namespace=kube-flannel", p.Metadata.Name, "--", "flanneld", command)
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("%s in %s: %v\n%s", command, p.Metadata.Name, err, out)
			}
		}
	}
}

// describe shows what is wrong with the cluster.
func (c *cluster) describe(ctx context.Context) string {
	out, err := c.k.Kubectl(ctx, "get", "nodes,pods", "--all-namespaces", "--output=wide")
	logs, _ := c.k.Kubectl(ctx, "logs", "--namespace=kube-flannel", "--selector=app=flannel", "--all-containers", "--tail=20", "--prefix")
	return fmt.Sprintln(out, err, logs)
}

// deleteDaemons makes the DaemonSet start new pods, on all nodes at once.
func (c *cluster) deleteDaemons(t *testing.T) {
	t.Helper()
	c.kubectl(t, "delete", "pods", "--namespace=kube-flannel", "--selector=app=flannel")
}

// nodesReady waits until every Node is ready.
func (c *cluster) nodesReady(t *testing.T) {
	t.Helper()
	soon(t, func() (string, bool) {
		nodes, err := c.k.API.Nodes(t.Context())
		if err != nil {
			return err.Error(), false
		}
		ready := 0
		for _, n := range nodes {
			if isReady(n) {
				ready++
			}
		}
		return fmt.Sprint(nodes), ready == len(c.Hosts)
	})
}

// isReady reports whether a Node runs pods and has its network.
func isReady(n kubeplane.Node) bool {
	have := map[string]string{}
	for _, c := range n.Status.Conditions {
		have[c.Type] = c.Status
	}
	return have["Ready"] == "True" && have["NetworkUnavailable"] == "False"
}

// subnets returns the subnets of all nodes, from their subnet.env.
func (c *cluster) subnets(t *testing.T) string {
	t.Helper()
	var all []string
	for _, h := range c.Hosts {
		e, err := h.Env()
		lab.Must(t, err)
		all = append(all, fmt.Sprint(h.Name, e.Subnet))
	}
	return strings.Join(all, " ")
}

// onEvery runs a command on every node until its output does.
func (c *cluster) onEvery(t *testing.T, ok func(output string) bool, command ...string) {
	t.Helper()
	for _, h := range c.Hosts {
		soon(t, func() (string, bool) {
			out, err := h.Exec(t.Context(), command...)
			return fmt.Sprintln(h.Name, command, out, err), err == nil && ok(out)
		})
	}
}

// contains returns a condition: the output has the text.
func contains(text string) func(string) bool {
	return func(output string) bool { return strings.Contains(output, text) }
}

// lacks returns the opposite condition.
func lacks(text string) func(string) bool {
	return func(output string) bool { return !strings.Contains(output, text) }
}
