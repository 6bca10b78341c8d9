package e2e

import (
	"testing"

	"flannel/internal/lab"
)

func TestTheUplinkGetsAnotherAddressWhileTheDaemonIsAway(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 3, Families: lab.Dual})
	up(t, l)
	h := l.Hosts[0]
	subnet := subnetOf(t, h)
	restart(t, h, func() { readdress(t, h) })
	reachedAt(t, l, h, subnet)
}
