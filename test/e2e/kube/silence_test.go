package kube

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flannel/internal/testkit/kubeplane"
	"flannel/lab"
)

// swallow lets the control plane drop whatever comes from a host, without an
// answer; the function returned ends that.
func swallow(t *testing.T, l *lab.Lab, from *lab.Host) (end func()) {
	t.Helper()
	control := l.Kubernetes.Node
	_, err := control.Exec(t.Context(), "nft", fmt.Sprintf("add table inet hole; add chain inet hole in { type filter hook input priority 0; }; "+
		"add rule inet hole in iifname %q ip saddr %s drop", lab.Uplink, from.Addr(0)))
	lab.Must(t, err)
	return func() {
		t.Helper()
		_, err := control.Exec(t.Context(), "nft", "delete table inet hole")
		lab.Must(t, err)
	}
}

// TestAnAPIServerThatIsSilent drops packets to the API server at the start of
// the daemon and while it is ready.
func TestAnAPIServerThatIsSilent(t *testing.T) {
	waits(t)
	l := newLab(t, lab.Options{Hosts: 1})
	h := l.Hosts[0]
	const silent = "cannot be reached: no answer, packets may be dropped on the way; see: curl -k https://"

	end := swallow(t, l, h)
	began := time.Now()
	lab.Must(t, h.StartFlanneld())
	says(t, h, "/readyz", silent)
	doctorReports(t, h, silent)
	t.Logf("reported %v after the start", time.Since(began).Round(time.Second))
	end()
	ready(t, h)
	says(t, h, "/readyz", "!store:")

	end = swallow(t, l, h)
	began = time.Now()
	says(t, h, "/readyz", silent)
	t.Logf("reported %v after the path broke", time.Since(began).Round(time.Second))
	if code, body, err := h.Flanneld().Get(t.Context(), "/readyz"); err != nil || code != 200 {
		t.Errorf("/readyz: %d %s %v", code, body, err)
	}
	end()
	says(t, h, "/readyz", "!store:")
	if n := countLines(h.Log(), "level=WARN", "cannot be reached"); n != 2 {
		t.Errorf("two outages in %d lines:\n%s", n, h.Log())
	}
	awaitEvent(t, l, h, "APIServerUnreachable", silent)
}

// TestTheAPIServersAddressIsOnThisHost has the address on a device as
// kube-proxy makes it in IPVS mode.
func TestTheAPIServersAddressIsOnThisHost(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1})
	h := l.Hosts[0]
	addr := l.Kubernetes.Addr()
	shell(t, h, "ip link add kube-ipvs0 type bridge")
	shell(t, h, "ip address add "+addr.String()+"/32 dev kube-ipvs0")
	lab.Must(t, h.StartFlanneld())
	says(t, h, "/readyz", fmt.Sprintf("%s is an address of this host itself, on device kube-ipvs0; see: ip address show dev kube-ipvs0", addr))
	doctorReports(t, h, fmt.Sprintf("%s is an address of this host itself, on device kube-ipvs0; see: ip address show dev kube-ipvs0", addr))
	shell(t, h, "ip link delete kube-ipvs0")
	ready(t, h)
}

// TestAKubeconfigThatLacksSomething sends anonymous requests, and then none.
func TestAKubeconfigThatLacksSomething(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1})
	h := l.Hosts[0]
	path := t.TempDir() + "/kubeconfig"
	lab.Must(t, l.Kubernetes.Plane.WriteKubeconfig(path, l.Kubernetes.Plane.URL(), kubeplane.Daemon))
	shell(t, h, "sed -i 's/, user: test//' "+path)
	h.Flags = []string{"--kubeconfig-file=" + path}
	lab.Must(t, h.StartFlanneld())
	says(t, h, "/readyz", "requests are anonymous, because the current context of "+path+" has no user; set one: "+
		"kubectl --kubeconfig "+path+" config set-context --current --user=NAME")
	says(t, h, "/readyz", "!ClusterRole")
	doctorReports(t, h, "requests are anonymous")
	lab.Must(t, h.Stop())

	// Nor does it begin without a context.
	shell(t, h, "sed -i '/current-context/d' "+path)
	lab.Must(t, h.StartFlanneld())
	<-h.Flanneld().Exited()
	want := path + " has no current-context (its contexts: test); set one: kubectl --kubeconfig " + path + " config use-context NAME"
	if log := h.Log(); h.Flanneld().ExitCode() != 1 || !strings.Contains(log, want) {
		t.Errorf("code %d:\n%s", h.Flanneld().ExitCode(), log)
	}
	lab.Must(t, l.Kubernetes.Plane.WriteKubeconfig(path, l.Kubernetes.Plane.URL(), kubeplane.Daemon))
	lab.Must(t, h.StartFlanneld())
	ready(t, h)
}
