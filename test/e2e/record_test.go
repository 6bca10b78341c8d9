package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

// onEachBackend runs a test of this node's record with backends that publish a
// key and with those that do not.
func onEachBackend(t *testing.T, hosts int, run func(t *testing.T, l *lab.Lab)) {
	for name, backend := range map[string]string{"vxlan": `{"Type": "vxlan"}`, "host-gw": `{"Type": "host-gw"}`, "udp": udpBackend} {
		t.Run(name, func(t *testing.T) {
			run(t, newLab(t, lab.Options{Hosts: hosts, Families: lab.Dual, Backend: backend}))
		})
	}
}

func snapshot(t *testing.T, l *lab.Lab) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "snapshot.db")
	lab.Must(t, l.Etcd.Snapshot(t.Context(), path))
	return path
}

func restore(t *testing.T, l *lab.Lab, snapshot string) {
	t.Helper()
	lab.Must(t, l.Etcd.Kill())
	lab.Must(t, l.Etcd.Restore(t.Context(), snapshot))
	startStore(t, l)
}

// start starts flanneld on a host and waits until it is ready.
func start(t *testing.T, h *lab.Host) {
	t.Helper()
	lab.Must(t, h.StartFlanneld())
	ready(t, h)
}

func addPod(t *testing.T, h *lab.Host) {
	t.Helper()
	_, err := h.AddPod("pod1")
	lab.Must(t, err)
}

// cut keeps a host from etcd until the returned function is called.
func cut(t *testing.T, h *lab.Host) (mend func()) {
	t.Helper()
	onHost(t, h, "ip route add blackhole 172.31.1.2")
	return func() { onHost(t, h, "ip route del blackhole 172.31.1.2") }
}

// quiet checks that no lease was lost and nobody argued about one.
func quiet(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, h := range l.Hosts {
		for _, text := range []string{"lease lost", "changed again and again"} {
			if strings.Contains(h.Log(), text) {
				t.Errorf("%s: %s", h.Name, h.Log())
			}
		}
	}
}

func TestABackupFromBeforeAnAddressChanged(t *testing.T) {
	onEachBackend(t, 3, func(t *testing.T, l *lab.Lab) {
		up(t, l)
		h := l.Hosts[0]
		subnet, backup := subnetOf(t, h), snapshot(t, l)
		readdress(t, h)
		reachedAt(t, l, h, subnet)
		restore(t, l, backup)
		reachedAt(t, l, h, subnet)
		// Once more, while the daemon is away.
		restart(t, h, func() { restore(t, l, backup) })
		reachedAt(t, l, h, subnet)
		quiet(t, l)
	})
}

// TestABackupWithTheRevisionsOfThePresent empties etcd, lets the nodes publish
// themselves in the order in which they came first, one with another address,
// and restores the backup: all revisions are as before.
func TestABackupWithTheRevisionsOfThePresent(t *testing.T) {
	onEachBackend(t, 2, func(t *testing.T, l *lab.Lab) {
		h, other := l.Hosts[0], l.Hosts[1]
		for _, h := range l.Hosts {
			start(t, h)
			addPod(t, h)
		}
		connected(t, l)
		config, err := l.Etcd.List(t.Context(), lab.DefaultPrefix+"/config")
		lab.Must(t, err)
		subnet, backup := subnetOf(t, h), snapshot(t, l)
		revision, err := l.Etcd.Revision(t.Context())
		lab.Must(t, err)

		mend, mendOther := cut(t, h), cut(t, other)
		readdress(t, h)
		lab.Must(t, l.Etcd.Kill())
		lab.Must(t, l.Etcd.Wipe())
		startStore(t, l)
		for key, value := range config {
			lab.Must(t, l.Etcd.Put(t.Context(), key, value))
		}
		published := func(n int) {
			t.Helper()
			eventually.Says(t, func() (string, bool) { return fmt.Sprint(leases(t, l)), len(leases(t, l)) == n })
		}
		mend()
		published(1)
		mendOther()
		published(2)
		reachedAt(t, l, h, subnet)
		if now, err := l.Etcd.Revision(t.Context()); err != nil || now != revision {
			t.Fatalf("revision %d, %v; it was %d", now, err, revision)
		}
		restore(t, l, backup)
		reachedAt(t, l, h, subnet)
		quiet(t, l)
	})
}

func TestAValueThatCannotBeDecodedIsReplaced(t *testing.T) {
	onEachBackend(t, 2, func(t *testing.T, l *lab.Lab) {
		up(t, l)
		h := l.Hosts[0]
		subnet, key := subnetOf(t, h), keyOf(t, h)
		record := leases(t, l)[key]
		mended := func(value string) {
			t.Helper()
			eventually.Says(t, func() (string, bool) { now := leases(t, l)[key]; return value + " became " + now, now == record })
			if now := subnetOf(t, h); now != subnet {
				t.Errorf("%q: subnet %v, want %v as before", value, now, subnet)
			}
			connected(t, l)
		}
		for _, value := range []string{"", "garbage", `{"PublicIP":`, "{}", `{"PublicIP":"nowhere"}`} {
			lab.Must(t, l.Etcd.Put(t.Context(), key, value))
			mended(value)
		}
		for _, value := range []string{"", "garbage"} {
			restart(t, h, func() { lab.Must(t, l.Etcd.Put(t.Context(), key, value)) })
			mended(value)
		}
		if n := len(leases(t, l)); n != len(l.Hosts) {
			t.Errorf("%d leases: %v", n, leases(t, l))
		}
		for _, h := range l.Hosts {
			if strings.Contains(h.Log(), "lease lost") {
				t.Errorf("%s: %s", h.Name, h.Log())
			}
		}
	})
}

// TestAnAddressThatGoesToAnotherNode cuts the first host off and gives its
// addresses to the second one, which starts. Then the first one is back, with
// other addresses.
func TestAnAddressThatGoesToAnotherNode(t *testing.T) {
	onEachBackend(t, 3, func(t *testing.T, l *lab.Lab) {
		first, second, third := l.Hosts[0], l.Hosts[1], l.Hosts[2]
		start(t, first)
		start(t, third)
		addPod(t, third)
		subnet := subnetOf(t, first)
		mend := cut(t, first)
		for f, bits := range map[ipfam.Family]string{ipfam.V4: "/24", ipfam.V6: "/64"} {
			onHost(t, first, "ip addr del "+first.Addr(f).String()+bits+" dev eth0")
			onHost(t, second, "ip addr del "+second.Addr(f).String()+bits+" dev eth0")
			onHost(t, second, strings.TrimSpace("ip addr add "+first.Addr(f).String()+bits+" dev eth0 "+map[ipfam.Family]string{ipfam.V6: "nodad"}[f]))
		}
		start(t, second)
		addPod(t, second)
		if now := subnetOf(t, second); now != subnet {
			t.Errorf("subnet %v does not go with the address, %v does", subnet, now)
		}
		record := leases(t, l)[keyOf(t, second)]

		mend()
		onHost(t, first, "ip addr add 172.31.1.200/24 dev eth0")
		onHost(t, first, "ip addr add fd00:31:0:1::200/64 dev eth0 nodad")
		eventually.Says(t, func() (string, bool) { return fmt.Sprint(leases(t, l)), len(leases(t, l)) == len(l.Hosts) })
		eventually.Says(t, func() (string, bool) { return first.Log(), subnetOf(t, first) != subnet })
		ready(t, first)
		addPod(t, first)
		connected(t, l)
		if now := leases(t, l)[keyOf(t, second)]; now != record {
			t.Errorf("the record was %s and is %s", record, now)
		}
		for _, h := range l.Hosts {
			if strings.Contains(h.Log(), "changed again and again") {
				t.Errorf("%s: %s", h.Name, h.Log())
			}
		}
	})
}
