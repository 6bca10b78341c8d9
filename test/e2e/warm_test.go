package e2e

import (
	"fmt"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

// reboot ends the daemon and takes away what a reboot takes of its work: what it
// made in the kernel, and /run.
func reboot(t *testing.T, h *lab.Host) {
	t.Helper()
	lab.Must(t, h.Kill())
	onHost(t, h, "ip route flush proto 70")
	for _, dev := range []string{"flannel.1", "flannel-v6.1"} {
		if _, err := h.Interface(dev); err == nil {
			onHost(t, h, "ip link del "+dev)
		}
	}
	onHost(t, h, "rm -rf /run/flannel")
}

// runsFromState waits until the daemon is ready although the store is away.
func runsFromState(t *testing.T, h *lab.Host) {
	t.Helper()
	eventually.Says(t, func() (string, bool) {
		code, body, err := h.Flanneld().Get(t.Context(), "/readyz")
		return fmt.Sprint(code, body, err), code == 200 && strings.Contains(body, "leases: running from state of 20")
	})
}

func TestANodeStartsWithoutItsStore(t *testing.T) {
	for name, backend := range map[string]string{"vxlan": `{"Type": "vxlan"}`, "host-gw": `{"Type": "host-gw"}`, "on demand": onDemandBackend} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 3, Families: lab.Dual, Backend: backend})
			up(t, l)
			rebooted := l.Hosts[:2]
			before, subnets := map[string]string{}, leases(t, l)
			for _, h := range rebooted {
				lab.Must(t, h.Stop()) // it writes what it knows
				before[h.Name] = dataPath(t, h)
			}
			lab.Must(t, l.Etcd.Kill())
			for _, h := range rebooted {
				reboot(t, h)
				lab.Must(t, h.StartFlanneld())
			}
			for _, h := range rebooted {
				runsFromState(t, h)
			}
			connected(t, l)
			// What is tampered with meanwhile heals.
			onHost(t, rebooted[0], "ip route flush proto 70")
			connected(t, l)
			series := startPing(t, rebooted[0], rebooted[1], ipfam.V4)
			startStore(t, l)
			for _, h := range rebooted {
				eventually.Says(t, func() (string, bool) {
					_, body, err := h.Flanneld().Get(t.Context(), "/readyz")
					return fmt.Sprint(body, err), err == nil && !strings.Contains(body, "running from state")
				})
			}
			if name == "vxlan" { // as the fake peer
				key, value := fakePeer(77)
				lab.Must(t, l.Etcd.Put(t.Context(), key, value))
				hasPeer(t, rebooted[0], 77, true)
				lab.Must(t, l.Etcd.Delete(t.Context(), key))
				hasPeer(t, rebooted[0], 77, false)
			}
			lab.NothingLost(t, series)
			sameSubnets(t, l, subnets)
			for _, h := range rebooted {
				eventually.Says(t, func() (string, bool) { now := dataPath(t, h); return now, now == before[h.Name] })
			}
		})
	}
}

func TestAnotherConfigurationWinsOverWhatWasKnown(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	up(t, l)
	h := l.Hosts[0]
	lab.Must(t, l.Hosts[1].Stop())
	lab.Must(t, h.Stop())
	lab.Must(t, l.Etcd.Put(t.Context(), lab.DefaultPrefix+"/config", `{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": 7}}`))
	lab.Must(t, l.Etcd.Kill())
	reboot(t, h)
	lab.Must(t, h.StartFlanneld())
	runsFromState(t, h)
	subnet := subnetOf(t, h)
	startStore(t, l)
	eventually.Says(t, func() (string, bool) {
		devices := onHost(t, h, "ip -br link show type vxlan")
		return devices, strings.Contains(devices, "flannel.7") && !strings.Contains(devices, "flannel.1 ")
	})
	ready(t, h)
	if now := subnetOf(t, h); now != subnet {
		t.Errorf("subnet %v, want %v as before", now, subnet)
	}
}
