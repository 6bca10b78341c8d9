package kernel_test

import (
	"strings"
	"testing"

	"flannel/kernel"
)

func TestAddedPeersAreThereBeforeTheNextPass(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		up := m.uplinkIndex()
		apply(t, m, single(up, 3))
		m.Add(t.Context(), single(up, 2))
		mustHave(t, m, peerEntries...)
		if stats := apply(t, m, single(up, 2, 3)); stats.Put[kernel.TableRoutes] != 1 || stats.Changed() != 3 || stats.Listed {
			t.Errorf("got %+v, want the three entries that were added", stats)
		}
		if stats := apply(t, m, single(up, 2, 3)); stats.Changed() != 0 {
			t.Errorf("got %+v, want no further change", stats)
		}
		mustHave(t, m, peerEntries...)
	})
}

func TestAddedPeersThatNobodyWantsGo(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		up := m.uplinkIndex()
		apply(t, m, single(up, 3))
		m.Add(t.Context(), single(up, 2))
		if stats := apply(t, m, single(up, 3)); stats.Deleted[kernel.TableRoutes] != 1 {
			t.Errorf("got %+v, want the route deleted", stats)
		}
		mustLack(t, m, peerEntries...)
		mustHave(t, m, "route 10.5.3.0/24")
	})
}

func TestAddLeavesDecisionsToApply(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		up := m.uplinkIndex()
		m.Add(t.Context(), single(up, 2)) // before anything is known
		mustLack(t, m, peerEntries...)
		apply(t, m, single(up, 3))
		tests := map[string]func(*kernel.State){
			"a MAC that is taken":    func(s *kernel.State) { s.FDB[0].MAC = mac(3) },
			"a route that is taken":  func(s *kernel.State) { s.Routes[0].Dst = subnet4(3) },
			"a device that is not":   func(s *kernel.State) { s.Routes[0].Dev = "eth7" },
			"a device never used so": func(s *kernel.State) { s.Routes[0].Dev = "eth0" },
			"somebody interfered":    func(*kernel.State) { m.Invalidate() },
		}
		for name, change := range tests {
			some := single(up, 2)
			change(&some)
			m.Add(t.Context(), some)
			if strings.Contains(m.text(), "02:00:00:00:00:02") || strings.Contains(m.text(), "10.5.2.0") {
				t.Errorf("%s: something was written:\n%s", name, m.text())
			}
		}
	})
}

func TestAnAdditionThatFailsIsMendedByApply(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		up := m.uplinkIndex()
		apply(t, m, single(up, 3))
		foreign := kernel.Route{Dst: subnet4(2), Via: public4(9), Dev: "eth0"}
		m.route(foreign, 4)
		apply(t, m, single(up, 3)) // the fake tells of every change
		m.Add(t.Context(), single(up, 2))
		stats, err := m.Apply(t.Context(), single(up, 2, 3), false)
		if err == nil || stats.Failed[subnet4(2)] == nil {
			t.Errorf("got %+v, %v; want that the route is taken", stats, err)
		}
		m.remove("route 10.5.2.0/24")
		apply(t, m, single(up, 2, 3))
		mustHave(t, m, peerEntries...)
	})
}
