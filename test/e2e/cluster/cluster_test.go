package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/lab"
)

// TestCluster takes one cluster through its life. Each step begins with what
// the former one has left.
func TestCluster(t *testing.T) {
	c := newCluster(t)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"it waits for kube-proxy, and has a way around", waitsForKubeProxy},
		{"flannel's manifest gets our image, and is replaced, without loss", replacesFlannel},
		{"pods of the DaemonSet are deleted without loss", losesItsPods},
		{"other backends and back", changesBackend},
		{"rules of nftables", usesNFTables},
		{"drops of the hosts are lifted", liftsDrops},
		{"it is deleted and applied again without loss", comesBack},
		{"flannel's chart with our image on new nodes and over running pods", runsFlannelsChart},
		{"both families", usesBothFamilies},
		{"pods that end leave nothing", endsPods},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			step.run(t, c)
			c.nothingFound(t)
		}) {
			t.FailNow()
		}
	}
}

// waitsForKubeProxy starts on nodes on which nobody serves the Service that
// pods find the API server by. The folders of CNI are not root's, as some
// installers of Kubernetes have it.
func waitsForKubeProxy(t *testing.T, c *cluster) {
	for _, h := range c.Hosts {
		_, err := h.Exec(t.Context(), "chown", "997", "/opt/cni/bin", "/etc/cni/net.d")
		lab.Must(t, err)
	}
	c.kubectl(t, "apply", "--filename="+manifest, "--filename=testdata/testpods.yml")
	soon(t, func() (string, bool) {
		said := 0
		pods, _ := c.daemons(t.Context()) // none yet
		for _, p := range pods {
			log, err := c.k.Kubectl(t.Context(), "logs", "--namespace=kube-flannel", p.Metadata.Name)
			if err == nil && strings.Contains(log, "kube-proxy") && strings.Contains(log, "--kube-api-url") {
				said++
			}
		}
		return fmt.Sprintf("%d of the daemons say it", said), said == len(c.Hosts)
	})
	// So is the reason why pods do not start.
	soon(t, func() (string, bool) {
		out, err := c.k.Kubectl(t.Context(), "get", "events", "--field-selector=reason=FailedCreatePodSandBox", "--output=jsonpath={.items[*].message}")
		return fmt.Sprintln(out, err), strings.Contains(out, "/run/flannel/subnet.env: no such file or directory") &&
			strings.Contains(out, "flanneld is not ready yet: store: ") && strings.Contains(out, "kube-proxy must serve it on this node")
	})
	c.kubectl(t, "delete", "--filename=testdata/testpods.yml")
	c.renewed(t, func() {
		c.kubectl(t, "patch", "daemonset", "kube-flannel-ds", "--namespace=kube-flannel", "--type=json",
			`--patch=[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--kube-api-url=`+c.k.Plane.URL()+`"}]`)
	})
	c.nodesReady(t)
	c.kubectl(t, "delete", "--filename="+manifest)
}

// replacesFlannel also shows that kube-proxy ends the waiting by itself.
func replacesFlannel(t *testing.T, c *cluster) {
	c.renewed(t, func() { c.kubectl(t, "apply", "--filename=testdata/before.yml") })
	c.kubectl(t, "apply", "--filename=testdata/testpods.yml")
	for _, h := range c.Hosts {
		lab.Must(t, h.Worker.StartProxy())
	}
	c.connected(t)
	c.swapImages(t, after)
	c.undisturbed(t, func() {
		c.renewed(t, func() { c.kubectl(t, "apply", "--filename="+manifest) })
	})
}

// swapImages changes nothing but the images of what flannel's manifest or chart
// has made; pods do not notice.
func (c *cluster) swapImages(t *testing.T, image string) {
	t.Helper()
	c.undisturbed(t, func() {
		c.renewed(t, func() {
			c.kubectl(t, "set", "image", "--namespace=kube-flannel", "daemonset/kube-flannel-ds", "*="+image)
		})
	})
	c.onEvery(t, contains("CNI plugin flannel"), "sh", "-c", "/opt/cni/bin/flannel 2>&1")
}

// runsFlannelsChart begins on nodes on which nothing of a network is left but
// their pods.
func runsFlannelsChart(t *testing.T, c *cluster) {
	c.kubectl(t, "delete", "--filename="+manifest)
	c.onEvery(t, contains(""), "rm", "-f", conflist, "/opt/cni/bin/flannel", "/run/flannel/subnet.env")
	c.onEvery(t, contains(""), "ip", "link", "delete", "flannel.1")
	c.renewed(t, func() { c.kubectl(t, "apply", "--filename="+flannelsChart(t, after, after)) })
	c.nodesReady(t)
	c.onEvery(t, contains("cbr0"), "cat", conflist)
	c.connected(t)
	c.renewed(t, func() { c.kubectl(t, "apply", "--filename="+flannelsChart(t, before[0], before[1])) })
	c.connected(t)
	c.swapImages(t, lab.IPTablesImage)
	c.onEvery(t, contains("-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT"), "iptables-save")
	c.onEvery(t, lacks("flannel-ipv4"), "nft", "list", "tables")
	liftsLegacyDrops(t, c)
	c.kubectl(t, "delete", "--namespace=kube-flannel", "daemonset/kube-flannel-ds")
	c.renewed(t, func() { c.kubectl(t, "apply", "--filename="+manifest) })
}

// flannelsChart makes objects of the shape of flannel's chart: another selector
// than that of the release page, and flags beside the program.
func flannelsChart(t *testing.T, daemon, plugin string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/before.yml")
	lab.Must(t, err)
	chart := strings.NewReplacer("matchLabels: {app: flannel, k8s-app: flannel}", "matchLabels: {app: flannel}",
		"[/opt/bin/flanneld]\n        args: [", "[/opt/bin/flanneld, ", before[0], daemon, before[1], plugin).Replace(string(text))
	file := filepath.Join(t.TempDir(), "chart.yml")
	lab.Must(t, os.WriteFile(file, []byte(chart), 0o644))
	return file
}

func losesItsPods(t *testing.T, c *cluster) {
	c.undisturbed(t, func() {
		c.renewed(t, func() { c.deleteDaemons(t) })
	})
	// In a container without rights to /proc/sys nothing is missing.
	log := c.kubectl(t, "logs", "--namespace=kube-flannel", "--selector=app=flannel", "--container=kube-flannel", "--tail=-1")
	for line := range strings.Lines(log) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN") {
			t.Error(line)
		}
	}
}

// undisturbed runs a step that pods must not notice.
func (c *cluster) undisturbed(t *testing.T, step func()) {
	t.Helper()
	subnets, series := c.subnets(t), c.startPing(t)
	step()
	lab.NothingLost(t, series)
	if got := c.subnets(t); got != subnets {
		t.Errorf("subnets %s, want %s as before", got, subnets)
	}
	c.nodesReady(t)
	c.connected(t)
}

// apply applies a variant of the manifest and starts all daemons with it: a
// changed configuration alone restarts none.
func (c *cluster) apply(t *testing.T, args ...string) {
	t.Helper()
	c.renewed(t, func() {
		c.kubectl(t, append([]string{"apply"}, args...)...)
		c.deleteDaemons(t)
	})
}

// conflist makes a node take pods.
const conflist = "/etc/cni/net.d/10-flannel.conflist"

func changesBackend(t *testing.T, c *cluster) {
	c.apply(t, "--kustomize="+filepath.Join(variants, "host-gw"))
	c.onEvery(t, lacks("flannel.1"), "ip", "-brief", "link")
	c.onEvery(t, contains("dev eth0 proto 70"), "ip", "route")
	c.connected(t)
	c.apply(t, "--kustomize="+filepath.Join(variants, "udp"))
	c.onEvery(t, lacks("dev eth0 proto 70"), "ip", "route")
	c.onEvery(t, contains("flannel0"), "ip", "-brief", "link")
	c.connected(t)
	// This variant is the default one, but for who installs the file of CNI.
	c.onEvery(t, contains(""), "rm", "-f", conflist)
	c.apply(t, "--kustomize="+filepath.Join(variants, "late-cni"))
	c.onEvery(t, contains("cbr0"), "cat", conflist)
	c.nodesReady(t)
	c.onEvery(t, lacks("flannel0"), "ip", "-brief", "link")
	c.onEvery(t, contains("flannel.1"), "ip", "-brief", "link")
	c.connected(t)
}

func usesNFTables(t *testing.T, c *cluster) {
	c.apply(t, "--kustomize="+filepath.Join(variants, "nftables"))
	c.onEvery(t, contains("masquerade"), "nft", "list", "table", "ip", "flannel-ipv4")
	c.onEvery(t, lacks("FLANNEL-POSTRTG"), "iptables-save")
	c.onEvery(t, contains("-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD"), "iptables-save")
	c.connected(t)
}

// comesBack takes the manifest away and applies it again; pods that run do not
// notice.
func comesBack(t *testing.T, c *cluster) {
	c.undisturbed(t, func() {
		c.kubectl(t, "delete", "--filename="+manifest)
		c.renewed(t, func() { c.kubectl(t, "apply", "--filename="+manifest) })
	})
}

// usesBothFamilies gives pods that start from then on addresses of both.
func usesBothFamilies(t *testing.T, c *cluster) {
	c.apply(t, "--kustomize="+filepath.Join(variants, "dual-stack"))
	c.kubectl(t, "delete", "pods", "--selector=app=testpods")
	for _, pod := range c.testpods(t) {
		if !pod.Addr(ipfam.V6).IsValid() {
			t.Errorf("%s has no IPv6 address", pod.Name)
		}
	}
	c.connected(t)
}

func endsPods(t *testing.T, c *cluster) {
	c.kubectl(t, "delete", "--filename=testdata/testpods.yml")
	c.onEvery(t, lacks("veth"), "ip", "-brief", "link")
	c.onEvery(t, lacks("10.244."), "ls", "/var/lib/cni/networks/cbr0")
	c.onEvery(t, func(out string) bool { return out == "" }, "ls", "/var/lib/cni/flannel")
}
