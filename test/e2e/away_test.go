package e2e

import (
	"fmt"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

func TestTheUplinkGetsAnotherAddressWhileTheDaemonIsAway(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 3, Families: lab.Dual})
	up(t, l)
	h := l.Hosts[0]
	subnet := subnetOf(t, h)
	restart(t, h, func() { readdress(t, h) })
	reachedAt(t, l, h, subnet)
}

// TestOtherBackendsSeeWhatChangedWhileTheDaemonWasAway lets one peer leave and
// another one move while host1 does not look.
func TestOtherBackendsSeeWhatChangedWhileTheDaemonWasAway(t *testing.T) {
	for name, backend := range map[string]string{"host-gw": `{"Type": "host-gw"}`, "udp": udpBackend, "on demand": onDemandBackend} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 3, Families: lab.Dual, Backend: backend})
			up(t, l)
			mover, h, leaver := l.Hosts[0], l.Hosts[1], l.Hosts[2]
			gone := strings.Fields(place(t, "SUBNET SUBNET6", leaver))
			restart(t, h, func() {
				lab.Must(t, leaver.Stop())
				lab.Must(t, l.Etcd.Delete(t.Context(), keyOf(t, leaver)))
				readdress(t, mover)
				eventually.Says(t, func() (string, bool) {
					record := leases(t, l)[keyOf(t, mover)]
					return record, strings.Contains(record, "172.31.1.200") && strings.Contains(record, "fd00:31:0:1::200")
				})
			})
			for _, f := range ipfam.All() {
				eventually.Says(t, func() (string, bool) {
					_, err := h.Pods()[0].Ping(t.Context(), mover.Pods()[0].Addr(f))
					return fmt.Sprint(err), err == nil
				})
				eventually.Says(t, func() (string, bool) {
					now := dataPath(t, h) + status(t, h)
					return "has " + gone[f] + "\n" + now, !strings.Contains(now, gone[f])
				})
			}
		})
	}
}
