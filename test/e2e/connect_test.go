package e2e

import (
	"testing"

	"flannel/lab"
)

func TestAllPodsReachEachOther(t *testing.T) {
	tests := map[string]lab.Families{"IPv4": lab.IPv4, "IPv6": lab.IPv6, "dual stack": lab.Dual}
	for name, families := range tests {
		t.Run(name, func(t *testing.T) {
			up(t, newLab(t, lab.Options{Hosts: 3, Families: families}))
		})
		t.Run(name+" with a router in between", func(t *testing.T) {
			up(t, newLab(t, lab.Options{Hosts: 3, Links: 2, Families: families}))
		})
	}
}
