package e2e

import (
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

func TestAllocLeasesAndTouchesNoRoute(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual, Backend: `{"Type": "alloc"}`})
	h := l.Hosts[0]
	// What whoever makes the routes here has made, as flannel would have.
	onHost(t, h, "ip route add 10.244.251.0/24 via 172.31.1.12 dev eth0")
	before := onHost(t, h, "ip route show") + onHost(t, h, "ip -6 route show") + onHost(t, h, "ip link show")
	for _, h := range l.Hosts {
		lab.Must(t, h.StartFlanneld())
		ready(t, h)
	}
	after := onHost(t, h, "ip route show") + onHost(t, h, "ip -6 route show") + onHost(t, h, "ip link show")
	if after != before {
		t.Errorf("before:\n%s\nnow:\n%s", before, after)
	}
	e := envOf(t, h)
	if e.MTU != 1500 || !e.Subnet[ipfam.V4].IsValid() || !e.Subnet[ipfam.V6].IsValid() {
		t.Errorf("subnet.env: %+v", e)
	}
	if record := leases(t, l)[keyOf(t, h)]; !strings.Contains(record, `"BackendType":"alloc"`) || strings.Contains(record, "BackendData") {
		t.Errorf("record %s", record)
	}
	// A lease that is wiped comes back although nobody else is watched.
	key := keyOf(t, h)
	lab.Must(t, l.Etcd.Delete(t.Context(), key))
	eventually.Says(t, func() (string, bool) {
		return "no " + key, leases(t, l)[key] != ""
	})
}
