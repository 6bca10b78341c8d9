package cluster

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"flannel/internal/testkit/kubeplane"
	"flannel/lab"
)

// staticPod is a pod that kubelet runs by itself.
const staticPod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "static"}, "spec": {"terminationGracePeriodSeconds": 1,
	"tolerations": [{"operator": "Exists"}], "containers": [{"name": "testpod", "image": "docker.io/library/testpod:lab",
	"imagePullPolicy": "Never", "command": ["/bin/testpod", "serve", ":8080"]}]}}`

const cniConf = `{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [{"type": "flannel", "delegate": {"isDefaultGateway": true}}]}`

// forget takes away what a reboot takes of the network.
const forget = `
	rm -r /run/flannel
	for d in $(ip -o link show | sed -n 's/^[0-9]*: \(cni0\|flannel[^:@]*\|veth[^:@]*\)[:@].*/\1/p'); do ip link del $d; done
	ip route flush proto 70; ip -6 route flush proto 70
	nft flush ruleset`

// TestStaticPodsTalkAfterAPowerCut runs the daemon as a unit does, beside
// kubelet. Both nodes lose what is in the kernel and in /run, and the API
// server does not come back.
func TestStaticPodsTalkAfterAPowerCut(t *testing.T) {
	c := newCluster(t)
	lab.Must(t, c.k.API.AllowDaemon(t.Context()))
	p, err := programs()
	lab.Must(t, err)
	var daemons []*lab.Daemon
	for _, h := range c.Hosts {
		_, err := h.Exec(t.Context(), "sh", "-c", fmt.Sprintf("echo '%s' >/run/conflist; echo '%s' >%s/static.json; %s install-cni --conf=/run/conflist --plugin=%s",
			cniConf, staticPod, kubeplane.StaticPods, p.Flanneld, p.Plugin))
		lab.Must(t, err)
		d, err := h.StartDaemon(lab.DaemonOptions{Name: "unit", Binary: p.Flanneld})
		lab.Must(t, err)
		daemons = append(daemons, d)
	}
	c.staticPodsTalk(t)

	for _, d := range daemons {
		lab.Must(t, d.Stop())
	}
	lab.Must(t, c.k.Stop())
	for _, h := range c.Hosts {
		lab.Must(t, h.Worker.Crash(t.Context()))
		_, err := h.Exec(t.Context(), "sh", "-c", forget)
		lab.Must(t, err)
		lab.Must(t, h.Worker.Start(lab.Limited(t, waitLimit)))
	}
	for _, d := range daemons {
		lab.Must(t, d.Start())
	}
	for _, d := range daemons {
		soon(t, func() (string, bool) {
			code, body, err := d.Get(t.Context(), "/readyz")
			return fmt.Sprint(code, body, err), code == 200 && strings.Contains(body, "running from state of 20")
		})
	}
	c.staticPodsTalk(t)
}

// staticPodsTalk waits until each node has its static pod, and the pods reach
// each other.
func (c *cluster) staticPodsTalk(t *testing.T) {
	t.Helper()
	addr := make([]netip.Addr, len(c.Hosts))
	for i, h := range c.Hosts {
		soon(t, func() (string, bool) {
			out, err := h.Exec(t.Context(), "sh", "-c", "for n in /run/netns/*; do nsenter --net=$n ip -4 -o addr show dev eth0; done")
			if _, rest, ok := strings.Cut(out, "inet "); ok {
				text, _, _ := strings.Cut(rest, "/")
				addr[i], err = netip.ParseAddr(text)
				return out, err == nil
			}
			return fmt.Sprintf("no pod on %s: %s %v", h.Name, out, err), false
		})
	}
	for i, h := range c.Hosts {
		pod, err := h.FindPod(addr[i])
		lab.Must(t, err)
		defer pod.Close()
		soon(t, func() (string, bool) {
			_, err := pod.Ping(t.Context(), addr[1-i])
			return fmt.Sprint(err), err == nil
		})
	}
}
