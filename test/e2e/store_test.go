package e2e

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

// fakePeer is a record as another node would write it.
func fakePeer(n int) (key, value string) {
	return fmt.Sprintf("%s/subnets/10.244.%d.0-24", lab.DefaultPrefix, n), fmt.Sprintf(
		`{"PublicIP":"172.31.1.%d","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:%02x"}}`, n, n)
}

// hasPeer waits until a host reaches, or does not reach, the subnet of a fake
// peer.
func hasPeer(t *testing.T, h *lab.Host, n int, want bool) {
	t.Helper()
	eventually.Says(t, func() (string, bool) {
		text := onHost(t, h, "ip route show proto 70")
		return text, want == strings.Contains(text, fmt.Sprintf("10.244.%d.0/24", n))
	})
}

func TestAStoreThatIsNotThereYetIsWaitedFor(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, NoEtcd: true})
	for _, h := range l.Hosts {
		lab.Must(t, h.StartFlanneld())
		eventually.Says(t, func() (string, bool) {
			_, body, err := h.Flanneld().Get(t.Context(), "/readyz")
			return fmt.Sprint(body, err), strings.Contains(body, "not ready yet") && strings.Contains(body, "store: cannot be reached")
		})
	}
	startStore(t, l)
	putConfig(t, l)
	for _, h := range l.Hosts {
		ready(t, h)
		if n := strings.Count(h.Log(), "etcd"); n > 12 {
			t.Errorf("%d lines about etcd:\n%s", n, h.Log())
		}
	}
}

func startStore(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	lab.Must(t, l.Etcd.Start(ctx))
}

func putConfig(t *testing.T, l *lab.Lab) {
	t.Helper()
	lab.Must(t, l.Etcd.Put(t.Context(), lab.DefaultPrefix+"/config", `{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}`))
}

func TestAnOutageCutsNobodyOff(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 3})
	up(t, l)
	h := l.Hosts[0]
	before := dataPath(t, h)
	series := startPing(t, h, l.Hosts[1], ipfam.V4)
	lab.Must(t, l.Etcd.Kill())
	eventually.Says(t, func() (string, bool) {
		code, body, _ := h.Flanneld().Get(t.Context(), "/readyz")
		return body, code == 200 && strings.Contains(body, "store: cannot be reached")
	})
	// What is tampered with meanwhile heals all the same.
	onHost(t, h, place(t, "ip route del SUBNET", l.Hosts[2]))
	eventually.Says(t, func() (string, bool) { now := dataPath(t, h); return now, now == before })
	startStore(t, l)
	// Changes made before the watches are back, and compacted, arrive.
	key, value := fakePeer(77)
	lab.Must(t, l.Etcd.Put(t.Context(), key, value))
	for range 10 {
		lab.Must(t, l.Etcd.Put(t.Context(), lab.DefaultPrefix+"/other", "x"))
	}
	lab.Must(t, l.Etcd.Compact(t.Context()))
	hasPeer(t, h, 77, true)
	lab.Must(t, l.Etcd.Delete(t.Context(), key))
	hasPeer(t, h, 77, false)
	lab.NothingLost(t, series)
}

// sameSubnets waits until all leases are in the store again, each with the
// subnet it had.
func sameSubnets(t *testing.T, l *lab.Lab, before map[string]string) {
	t.Helper()
	want := slices.Sorted(maps.Keys(before))
	eventually.Says(t, func() (string, bool) {
		now := slices.Sorted(maps.Keys(leases(t, l)))
		return fmt.Sprintf("leases %v, want %v", now, want), slices.Equal(now, want)
	})
}

// olderSnapshot takes a snapshot that lacks the lease of the last host and has
// another subnet for the first one. The hosts have the leases that they had.
func olderSnapshot(t *testing.T, l *lab.Lab) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "snapshot.db")
	first, last := l.Hosts[0], l.Hosts[len(l.Hosts)-1]
	restart(t, last, func() {
		lab.Must(t, l.Etcd.Delete(t.Context(), keyOf(t, last)))
		restart(t, first, func() {
			key := keyOf(t, first)
			earlier, _ := fakePeer(2)
			lab.Must(t, l.Etcd.PutLeased(t.Context(), earlier, leases(t, l)[key]))
			lab.Must(t, l.Etcd.Delete(t.Context(), key))
			lab.Must(t, l.Etcd.Snapshot(t.Context(), path))
			lab.Must(t, l.Etcd.Delete(t.Context(), earlier))
		})
	})
	connected(t, l)
	return path
}

// aboveFakePeers keeps the subnets of the hosts away from those of fake peers.
const aboveFakePeers = `{"Network": "10.244.0.0/16", "SubnetMin": "10.244.100.0", "Backend": {"Type": "vxlan"}}`

// Ten nodes are enough for a mass loss.
func TestAStoreThatForgetsCutsNobodyOff(t *testing.T) {
	tests := map[string]func(t *testing.T, l *lab.Lab, snapshot string){
		"all keys deleted": func(t *testing.T, l *lab.Lab, _ string) {
			lab.Must(t, l.Etcd.DeletePrefix(t.Context(), lab.DefaultPrefix+"/subnets/"))
		},
		"data directory wiped": func(t *testing.T, l *lab.Lab, _ string) {
			lab.Must(t, l.Etcd.Kill())
			lab.Must(t, l.Etcd.Wipe())
			startStore(t, l)
			lab.Must(t, l.Etcd.Put(t.Context(), lab.DefaultPrefix+"/config", aboveFakePeers))
		},
		"older snapshot restored": func(t *testing.T, l *lab.Lab, snapshot string) {
			lab.Must(t, l.Etcd.Kill())
			lab.Must(t, l.Etcd.Restore(t.Context(), snapshot))
			startStore(t, l)
		},
	}
	for name, forget := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 10, Network: aboveFakePeers})
			up(t, l)
			before := leases(t, l)
			snapshot := olderSnapshot(t, l)
			sameSubnets(t, l, before)
			var pings []func()
			for i, h := range l.Hosts {
				series := startPing(t, h, l.Hosts[(i+1)%len(l.Hosts)], ipfam.V4)
				pings = append(pings, func() { lab.NothingLost(t, series) })
			}
			forget(t, l, snapshot)
			sameSubnets(t, l, before)
			key, value := fakePeer(1)
			lab.Must(t, l.Etcd.Put(t.Context(), key, value))
			for _, h := range l.Hosts {
				hasPeer(t, h, 1, true)
			}
			connected(t, l)
			for _, end := range pings {
				end()
			}
		})
	}
}

// TestAMassLossIsBelievedWhenTwoListsAgree takes longer than the 30 s that the
// lists are apart.
func TestAMassLossIsBelievedWhenTwoListsAgree(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1, Network: `{"Network": "10.244.0.0/16", "SubnetMax": "10.244.90.0", "SubnetMin": "10.244.20.0", "Backend": {"Type": "vxlan"}}`})
	up(t, l)
	h := l.Hosts[0]
	for n := 100; n < 112; n++ {
		key, value := fakePeer(n)
		lab.Must(t, l.Etcd.Put(t.Context(), key, value))
	}
	hasPeer(t, h, 111, true)
	before := dataPath(t, h)
	// The same loss is held back when the daemon starts after it.
	lab.Must(t, l.Etcd.DeletePrefix(t.Context(), lab.DefaultPrefix+"/subnets/10.244.1"))
	restart(t, h, func() {})
	eventually.Says(t, func() (string, bool) {
		_, body, err := h.Flanneld().Get(t.Context(), "/readyz")
		return fmt.Sprint(body, err), strings.Contains(body, "kept although the store does not show them")
	})
	if now := dataPath(t, h); now != before {
		t.Errorf("before:\n%s\nnow:\n%s", before, now)
	}
	eventually.Within(t, 3*waitLimit, func() (string, bool) {
		now := dataPath(t, h)
		return now, !strings.Contains(now, "10.244.1")
	})
}

func TestTheOwnKeyDeletedComesBack(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	up(t, l)
	h := l.Hosts[0]
	before := leases(t, l)
	lab.Must(t, l.Etcd.Delete(t.Context(), keyOf(t, h)))
	sameSubnets(t, l, before)
	connected(t, l)
}

func TestTheOwnKeyTakenOverLeadsToAnotherSubnet(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	up(t, l)
	h := l.Hosts[0]
	old, key := subnetOf(t, h), keyOf(t, h)
	_, stranger := fakePeer(99)
	lab.Must(t, l.Etcd.Put(t.Context(), key, stranger))
	eventually.Says(t, func() (string, bool) {
		now := subnetOf(t, h)
		return fmt.Sprintf("subnet %v", now), now != old
	})
	ready(t, h)
	if got := leases(t, l)[key]; got != stranger {
		t.Errorf("the record is %s, want the stranger's %s", got, stranger)
	}
	eventually.Says(t, func() (string, bool) { return h.Log(), strings.Contains(h.Log(), "cni0") })
}

func TestAWrongRecordHarmsNobodyElse(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	up(t, l)
	h := l.Hosts[0]
	_, good := fakePeer(99)
	prefix := lab.DefaultPrefix + "/subnets/"
	wrong := map[string]string{
		"10.244.90.0-24": `{"PublicIP":`,
		"10.99.0.0-24":   good,
		"nonsense":       good,
		"10.244.91.0-24": strings.ReplaceAll(good, "02:00:00:00:00:63", "00:00:00:00:00:00"),
		"10.244.92.0-24": strings.ReplaceAll(good, "02:00:00:00:00:63", macOf(t, h)),
		"10.244.93.0-24": strings.ReplaceAll(good, "172.31.1.99", h.Addr(ipfam.V4).String()),
	}
	before := dataPath(t, h)
	for key, value := range wrong {
		lab.Must(t, l.Etcd.Put(t.Context(), prefix+key, value))
	}
	key, value := fakePeer(98)
	lab.Must(t, l.Etcd.Put(t.Context(), key, value))
	hasPeer(t, h, 98, true)
	_, status, err := h.Flanneld().Get(t.Context(), "/status")
	lab.Must(t, err)
	for key := range wrong {
		if !strings.Contains(status, key) {
			t.Errorf("/status does not name %s", key)
		}
		if n := strings.Count(h.Log(), "peer="+key); n != 1 {
			t.Errorf("%d lines about %s", n, key)
		}
	}
	_, metrics, err := h.Flanneld().Get(t.Context(), "/metrics")
	lab.Must(t, err)
	for _, want := range []string{`flannel_peers{family="ipv4",state="left out"} 6`, "flannel_store_reachable 1"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in metrics:\n%s", want, metrics)
		}
	}
	lab.Must(t, l.Etcd.Delete(t.Context(), key))
	hasPeer(t, h, 98, false)
	if now := dataPath(t, h); now != before {
		t.Errorf("before:\n%s\nnow:\n%s", before, now)
	}
	connected(t, l)
}

func TestASecondDaemonOfTheSameOverlayWaits(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1})
	up(t, l)
	h := l.Hosts[0]
	second, err := h.StartDaemon(lab.DaemonOptions{Name: "second", SubnetFile: "/run/flannel/second.env", HealthPort: 8082})
	lab.Must(t, err)
	eventually.Says(t, func() (string, bool) {
		_, body, err := second.Get(t.Context(), "/readyz")
		return fmt.Sprint(body, err), strings.Contains(body, "instance: another flanneld on this host uses "+lab.DefaultPrefix)
	})
	lab.Must(t, h.Kill())
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	lab.Must(t, second.WaitReady(ctx))
}

func TestOneDaemonPerPrefix(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	up(t, l)
	lab.Must(t, l.Etcd.Put(t.Context(), "/second/config", `{"Network": "10.245.0.0/16", "Backend": {"Type": "vxlan", "VNI": 7}}`))
	before := dataPath(t, l.Hosts[0])
	var second []*lab.Daemon
	for _, h := range l.Hosts {
		d, err := h.StartDaemon(lab.DaemonOptions{
			Name: "second", Prefix: "/second", SubnetFile: "/run/flannel/second.env", HealthPort: 8082,
		})
		lab.Must(t, err)
		second = append(second, d)
	}
	for _, d := range second {
		ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
		lab.Must(t, d.WaitReady(ctx))
		cancel()
	}
	eventually.Says(t, func() (string, bool) {
		text := onHost(t, l.Hosts[0], "ip route show dev flannel.7")
		return text, strings.Contains(text, "10.245.")
	})
	// Each puts back its own and leaves the other's alone.
	onHost(t, l.Hosts[0], "ip link del flannel.7")
	restart(t, l.Hosts[0], func() {})
	eventually.Says(t, func() (string, bool) {
		text := onHost(t, l.Hosts[0], "ip route show proto 70")
		return text, strings.Contains(text, "10.245.") && strings.Contains(text, "10.244.")
	})
	connected(t, l)
	for _, d := range second {
		lab.Must(t, d.Stop())
	}
	onHost(t, l.Hosts[0], "ip link del flannel.7")
	if now := dataPath(t, l.Hosts[0]); now != before {
		t.Errorf("before:\n%s\nnow:\n%s", before, now)
	}
}
