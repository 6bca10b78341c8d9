package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/kernel"
	"flannel/lab"
	"flannel/lab/ping"
)

// pingInterval is how densely a continuous ping watches the data path.
const pingInterval = 5 * time.Millisecond

// startPing lets the pod of one host ping the one of another without a break.
func startPing(t *testing.T, from, to *lab.Host, f ipfam.Family) *ping.Series {
	t.Helper()
	series, err := from.Pods()[0].StartPing(to.Pods()[0].Addr(f), pingInterval)
	lab.Must(t, err)
	return series
}

func TestPodsKeepTalkingWhileTheDaemonIsKilled(t *testing.T) {
	tests := map[string]struct {
		backend string
		times   int
	}{"vxlan": {`{"Type": "vxlan"}`, 20}, "host-gw": {`{"Type": "host-gw"}`, 5}, "on demand": {onDemandBackend, 5}}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual, Backend: tt.backend})
			up(t, l)
			h := l.Hosts[0]
			subnet := subnetOf(t, h)
			v4 := startPing(t, h, l.Hosts[1], ipfam.V4)
			v6 := startPing(t, h, l.Hosts[1], ipfam.V6)
			for range tt.times {
				lab.Must(t, h.Kill())
				lab.Must(t, h.StartFlanneld())
				ready(t, h)
				if got := subnetOf(t, h); got != subnet {
					t.Fatalf("subnet %v, want %v as before", got, subnet)
				}
			}
			lab.NothingLost(t, v4)
			lab.NothingLost(t, v6)
		})
	}
}

// TestRoutesWithoutAMetricAreReplaced begins with the IPv4 routes of an earlier
// version, or of flannel, which have none.
func TestRoutesWithoutAMetricAreReplaced(t *testing.T) {
	const tunnel, direct = "SUBNET via VTEP dev flannel.1 onlink proto ", "SUBNET via ADDR dev eth0 proto "
	tests := map[string]struct {
		backend, old string
		adopted      bool
	}{
		"vxlan of an earlier version":   {`{"Type": "vxlan"}`, tunnel + "70", false},
		"host-gw of an earlier version": {`{"Type": "host-gw"}`, direct + "70", false},
		"vxlan of flannel":              {`{"Type": "vxlan"}`, tunnel + "boot", true},
		"host-gw of flannel":            {`{"Type": "host-gw"}`, direct + "boot", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 2, Backend: tt.backend})
			up(t, l)
			h, peer := l.Hosts[0], l.Hosts[1]
			want := dataPath(t, h)
			old := strings.ReplaceAll(place(t, tt.old, peer), "ADDR", peer.Addr(ipfam.V4).String())
			lab.Must(t, h.Stop())
			v4 := startPing(t, h, peer, ipfam.V4)
			for range 5 {
				onHost(t, h, "ip route add "+old)
				onHost(t, h, place(t, "ip route del SUBNET proto 70 metric ", peer)+metricOf(t, peer))
				if tt.adopted {
					onHost(t, h, "rm -r "+lab.StateDir) // flannel knows nothing of it.
				}
				lab.Must(t, h.StartFlanneld())
				ready(t, h)
				eventually.Says(t, func() (string, bool) {
					now := dataPath(t, h)
					return now, now == want
				})
				if routes := onHost(t, h, "ip route show "+subnetOf(t, peer)[ipfam.V4].String()); strings.Count(routes, "\n") != 1 {
					t.Errorf("got %q, want one route", routes)
				}
				lab.Must(t, h.Stop())
			}
			lab.NothingLost(t, v4)
		})
	}
}

// metricOf returns the metric of the routes to the subnet of a host.
func metricOf(t *testing.T, h *lab.Host) string {
	t.Helper()
	dst := subnetOf(t, h)[ipfam.V4]
	k, _ := kernel.Route{Dst: dst, Via: dst.Addr()}.Entry(0)
	return fmt.Sprint(k.Metric)
}

func TestStoppingIsQuickAndLeavesTheDataPath(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	up(t, l)
	h := l.Hosts[0]
	before := dataPath(t, h)
	start := time.Now()
	lab.Must(t, h.Stop())
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("stopped after %v", took)
	}
	if code := h.Flanneld().ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if now := dataPath(t, h); now != before {
		t.Errorf("before:\n%s\nnow:\n%s", before, now)
	}
	connected(t, l)
}

func TestTheMACSurvivesARestartAndAReboot(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	up(t, l)
	h := l.Hosts[0]
	record := leases(t, l)[keyOf(t, h)]
	restart(t, h, func() { onHost(t, h, "ip link del flannel.1") })
	if now := leases(t, l)[keyOf(t, h)]; now != record {
		t.Errorf("record %s, want %s as before", now, record)
	}
	connected(t, l)
}

// TestWhatChangedWhileTheDaemonWasAway lets peers leave and change while host1
// does not look.
func TestWhatChangedWhileTheDaemonWasAway(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 4, Families: lab.Dual})
	up(t, l)
	h, leaver, mover, changer := l.Hosts[0], l.Hosts[1], l.Hosts[2], l.Hosts[3]
	foreign := []string{
		"ip route add 10.244.250.0/24 via 172.31.1.12 dev eth0",
		"ip route add 198.51.100.0/24 via 172.31.1.12 dev eth0 proto static",
		"ip -6 route add fd00:10:244:fff0::/64 via fd00:31:0:1::12 dev eth0",
		"ip neigh add 172.31.1.99 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
	}
	for _, command := range foreign {
		onHost(t, h, command)
	}
	others := onHost(t, h, "ip route show proto boot") + onHost(t, h, "ip -6 route show proto boot") +
		onHost(t, h, "ip route show proto static")
	gone := place(t, "SUBNET SUBNET6", leaver)
	oldMAC := macOf(t, changer)

	restart(t, h, func() {
		lab.Must(t, leaver.Stop())
		lab.Must(t, l.Etcd.Delete(t.Context(), keyOf(t, leaver)))
		onHost(t, mover, "ip addr del "+mover.Addr(ipfam.V4).String()+"/24 dev eth0")
		onHost(t, mover, "ip addr add 172.31.1.200/24 dev eth0")
		lab.Must(t, changer.Stop())
		onHost(t, changer, "ip link del flannel.1")
		lab.Must(t, l.Etcd.Put(t.Context(), keyOf(t, changer),
			strings.ReplaceAll(leases(t, l)[keyOf(t, changer)], oldMAC, "02:00:00:00:00:77")))
		lab.Must(t, changer.StartFlanneld())
		ready(t, changer)
		eventually.Says(t, func() (string, bool) {
			record := leases(t, l)[keyOf(t, mover)]
			return record, strings.Contains(record, "172.31.1.200")
		})
	})

	eventually.Says(t, func() (string, bool) {
		now := dataPath(t, h)
		stale := []string{oldMAC, "dst " + mover.Addr(ipfam.V4).String() + " "}
		stale = append(stale, strings.Fields(gone)...)
		for _, text := range stale {
			if strings.Contains(now, text) {
				return "stale: " + text + "\n" + now, false
			}
		}
		return now, strings.Contains(now, "dst 172.31.1.200 ") && strings.Contains(now, "02:00:00:00:00:77")
	})
	now := onHost(t, h, "ip route show proto boot") + onHost(t, h, "ip -6 route show proto boot") +
		onHost(t, h, "ip route show proto static")
	if now != others {
		t.Errorf("foreign routes before:\n%s\nnow:\n%s", others, now)
	}
	if text := onHost(t, h, "ip neigh show 172.31.1.99 dev eth0"); !strings.Contains(text, "PERMANENT") {
		t.Errorf("the foreign neighbor is %q", text)
	}
}

// macOf is the MAC of a host's IPv4 tunnel device.
func macOf(t *testing.T, h *lab.Host) string {
	t.Helper()
	link, err := h.Interface("flannel.1")
	lab.Must(t, err)
	return link.Attrs().HardwareAddr.String()
}
