package kernel_test

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"flannel/kernel"
	"flannel/kernel/kerneltest"
)

func TestTheMetricFollowsFromTheSubnet(t *testing.T) {
	gateway := public4(9)
	tests := map[string]struct {
		route kernel.Route
		want  int
	}{
		"the first":             {kernel.Route{Dst: netip.MustParsePrefix("10.244.0.0/24"), Via: gateway}, 1},
		"the next":              {kernel.Route{Dst: netip.MustParsePrefix("10.244.1.0/24"), Via: gateway}, 2},
		"the last":              {kernel.Route{Dst: netip.MustParsePrefix("10.244.255.0/24"), Via: gateway}, 256},
		"the first again":       {kernel.Route{Dst: netip.MustParsePrefix("10.245.0.0/24"), Via: gateway}, 1},
		"a small subnet":        {kernel.Route{Dst: netip.MustParsePrefix("10.5.1.16/28"), Via: gateway}, 0x11 + 1},
		"everything":            {kernel.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: gateway}, 1},
		"one that is asked for": {kernel.Route{Dst: subnet4(2), Via: gateway, Metric: 7000}, 7000},
		"no gateway":            {kernel.Route{Dst: network4, Dev: "flannel.1"}, 0},
		"IPv6":                  {kernel.Route{Dst: subnet6(2), Via: public6(9)}, 1024},
	}
	for name, test := range tests {
		k, _ := test.route.Entry(1)
		if k.Metric != test.want {
			t.Errorf("%s: got metric %d, want %d", name, k.Metric, test.want)
		}
	}
}

// earlier makes the routes of the IPv4 peer 2 and of peer 3 as an earlier version
// has left them, and peer 5 that has gone since.
func earlier(m machine) {
	up := m.uplinkIndex()
	m.device(single(up).Devices[0])
	for _, n := range []int{2, 5} {
		m.route(kernel.Route{Dst: subnet4(n), Via: subnet4(n).Addr(), Dev: "flannel.1", OnLink: true}, kernel.RouteProtocol)
	}
	m.route(kernel.Route{Dst: subnet4(3), Via: public4(3), Dev: "eth0"}, kernel.RouteProtocol)
}

func withDirect(up int) kernel.State {
	state := single(up, 2)
	state.Routes = append(state.Routes, kernel.Route{Dst: subnet4(3), Via: public4(4), Dev: "eth0"})
	return state
}

// While deletions are held, too: what remains of an earlier version would win.
func TestRoutesOfAnEarlierVersionAreReplaced(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		earlier(m)
		state := withDirect(m.uplinkIndex())
		stats, err := m.Apply(t.Context(), state, true)
		if err != nil || stats.Held != 1 {
			t.Errorf("got %+v, %v, want the route of peer 5 held", stats, err)
		}
		for _, dst := range []string{"route 10.5.2.0/24", "route 10.5.3.0/24", "route 10.5.5.0/24"} {
			if got := strings.Count(m.text(), dst); got != 1 {
				t.Errorf("got %d of %q, want 1:\n%s", got, dst, m.text())
			}
		}
		mustHave(t, m, "route 10.5.2.0/24 via 10.5.2.0 dev flannel.1", "route 10.5.3.0/24 via 192.0.2.4 dev eth0")
		apply(t, m, state)
		mustLack(t, m, "route 10.5.5.0/24")
		m.Invalidate()
		if stats := apply(t, m, state); stats.Changed() != 0 {
			t.Errorf("a resync changed something: %+v", stats)
		}
	})
}

// A route stays while the kernel refuses the one that is to replace it.
func TestAnEarlierRouteStaysUntilItIsReplaced(t *testing.T) {
	n := newNode(t)
	n.IP("route add 10.5.3.0/24 via 192.0.2.3 proto 70")
	state := single(n.uplink)
	state.Routes = []kernel.Route{{Dst: subnet4(3), Via: netip.MustParseAddr("198.51.100.3"), Dev: "eth0"}}
	if stats, err := n.Apply(t.Context(), state, false); err == nil || stats.Failed[subnet4(3)] == nil {
		t.Fatalf("got %+v, %v, want that the gateway is refused", stats, err)
	}
	if !strings.Contains(n.Dump(), "route 10.5.3.0/24 via 192.0.2.3") {
		t.Errorf("the only route is gone:\n%s", n.Dump())
	}
	state.Routes[0].Via = public4(3)
	apply(t, n, state)
	if got := strings.Count(n.Dump(), "route 10.5.3.0/24 via 192.0.2.3 dev eth0 proto 70 metric 4"); got != 1 || strings.Count(n.Dump(), "route 10.5.3.0/24") != 1 {
		t.Errorf("got:\n%s", n.Dump())
	}
}

// The kernel takes a deletion without a metric for one of any metric.
func TestADeletionThatComesTooLateTakesNothing(t *testing.T) {
	f := kerneltest.New(scope)
	m := fakeMachine{f, f.AddLink("eth0", 1500)}
	m.device(single(m.uplink).Devices[0])
	m.route(kernel.Route{Dst: subnet4(2), Via: subnet4(2).Addr(), Dev: "flannel.1", OnLink: true}, kernel.RouteProtocol)
	b := f.Backing()
	once := b.Routes.Delete
	b.Routes.Delete = func(entries []kernel.Entry[kernel.RouteKey, kernel.RouteValue], fail func(int, error)) {
		once(entries, fail) // Somebody else is faster.
		once(entries, fail)
	}
	r := kernel.NewReconciler(slog.New(slog.DiscardHandler), scope, b)
	if stats := apply(t, r, single(m.uplink, 2)); stats.Deleted[kernel.TableRoutes] != 1 {
		t.Errorf("got %+v, want the old route deleted", stats)
	}
	mustHave(t, m, peerEntries...)
}

// precede adds the route of a user that wins against ours.
func precede(m machine) kernel.Route {
	users := kernel.Route{Dst: subnet4(2), Via: public4(9), Dev: "eth0"}
	m.route(users, 4)
	return users
}

func TestARouteWithALowerMetricIsNamed(t *testing.T) {
	named := func(t *testing.T, m machine, state kernel.State) {
		t.Helper()
		stats, err := m.Apply(t.Context(), state, false)
		if err == nil || !strings.Contains(err.Error(), "taken by another (protocol 4 via 192.0.2.9 dev eth0)") ||
			!strings.Contains(err.Error(), "`ip route del 10.5.2.0/24 proto 4 metric 0`") {
			t.Errorf("got error %v, want one that names the route and how to remove it", err)
		}
		if stats.Failed[subnet4(2)] == nil || len(stats.Failed) != 1 {
			t.Errorf("got %v, want that peer 2 failed alone", stats.Failed)
		}
		mustHave(t, m, peerEntries...)
		mustHave(t, m, "route 10.5.2.0/24 via 192.0.2.9 dev eth0")
	}
	tests := map[string]func(t *testing.T, m machine, state kernel.State) machine{
		"at the start": func(t *testing.T, m machine, state kernel.State) machine {
			precede(m)
			named(t, m, state)
			return m
		},
		"beside routes of an earlier run": func(t *testing.T, m machine, state kernel.State) machine {
			apply(t, m, state)
			precede(m)
			m = m.again(scope)
			named(t, m, state)
			return m
		},
		"beside a peer that comes": func(t *testing.T, m machine, state kernel.State) machine {
			precede(m)
			apply(t, m, single(m.uplinkIndex(), 3))
			named(t, m, state)
			return m
		},
		"later": func(t *testing.T, m machine, state kernel.State) machine {
			apply(t, m, state)
			precede(m)
			m.Invalidate()
			named(t, m, state)
			return m
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, m machine) {
				state := single(m.uplinkIndex(), 2, 3)
				m = test(t, m, state)
				named(t, m, state)
				if real, ok := m.(realMachine); ok {
					real.ns.IP("route del 10.5.2.0/24 proto 4 metric 0")
				} else {
					m.remove("route 10.5.2.0/24 via 192.0.2.9")
				}
				apply(t, m, state)
				mustLack(t, m, "192.0.2.9")
				mustHave(t, m, peerEntries...)
			})
		})
	}
}

func TestRoutesThatDoNotWinAreLeftAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		users := []kernel.Route{
			{Dst: subnet4(2), Via: public4(9), Dev: "eth0", Metric: 4}, // Ours has 3.
			{Dst: subnet4(9), Via: public4(9), Dev: "eth0"},            // No peer's.
			{Dst: netip.MustParsePrefix("10.5.2.128/25"), Via: public4(9), Dev: "eth0"},
		}
		for _, r := range users {
			m.route(r, 4)
		}
		apply(t, m, single(m.uplinkIndex(), 2))
		for _, r := range users {
			mustHave(t, m, "route "+r.Dst.String()+" via "+r.Via.String())
		}
		mustHave(t, m, peerEntries...)
	})
}

func routesInside(n *node) string { return n.IP("route show root", network4.String()) }

// An event tells of a route that wins, and of its end.
func TestARouteThatBeginsToWinIsNoticed(t *testing.T) {
	tests := map[string]struct{ add, remove string }{
		"a route":             {"route add 10.5.2.0/24 via 192.0.2.7", "route del 10.5.2.0/24 proto boot metric 0"},
		"of a router":         {"route add 10.5.3.0/24 via 192.0.2.7 proto bgp metric 1", "route del 10.5.3.0/24 proto bgp metric 1"},
		"a blackhole":         {"route add blackhole 10.5.2.0/24 proto static", "route del blackhole 10.5.2.0/24 proto static"},
		"a connected network": {"addr add 10.5.2.1/24 dev docker0", "addr del 10.5.2.1/24 dev docker0"},
		"with its device":     {"addr add 10.5.2.1/24 dev docker0", "link del docker0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.AddBridge("docker0")
			changed := follow(t, n.Reconciler)
			state := single(n.uplink, 2, 3)
			apply(t, n, state)
			want := routesInside(n)
			n.IP(test.add)
			wait(t, changed)
			for range 2 { // Also after a retry.
				if stats, err := n.Apply(t.Context(), state, false); err == nil || len(stats.Failed) != 1 {
					t.Fatalf("got %+v, %v, want that one peer failed", stats, err)
				}
			}
			n.IP(test.remove)
			wait(t, changed)
			apply(t, n, state)
			if got := routesInside(n); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// What others do elsewhere, or to routes that do not win, is not looked at.
func TestRoutesThatDoNotWinAreNoTampering(t *testing.T) {
	n := newNode(t)
	changed := follow(t, n.Reconciler)
	apply(t, n, single(n.uplink, 2, 3))
	for _, route := range []string{
		"10.5.2.0/24 via 192.0.2.7 metric 4", "10.5.2.7/32 via 192.0.2.7", "10.5.9.0/24 via 192.0.2.7",
		"198.51.100.0/24 via 192.0.2.7", "default via 192.0.2.7",
	} {
		n.IP("route add", route)
	}
	settle(t, n, changed)
	if got := n.Counters().Tampering; got != 1 {
		t.Errorf("got %d events taken for tampering, want only the one of settle", got)
	}
}

// What stands on our device is ours to remove.
func TestARouteThatWinsOnOurDeviceIsRemoved(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		state := single(m.uplinkIndex(), 2, 3)
		apply(t, m, state)
		m.route(kernel.Route{Dst: subnet4(2), Dev: "flannel.1"}, 3)
		m.Invalidate()
		stats, err := m.Apply(t.Context(), state, true)
		if err != nil || stats.Deleted[kernel.TableRoutes] != 1 {
			t.Errorf("got %+v, %v, want it deleted", stats, err)
		}
		mustHave(t, m, peerEntries...)
		if lines := slices.Collect(strings.Lines(m.text())); slices.ContainsFunc(lines, func(l string) bool {
			return strings.HasPrefix(l, "route 10.5.2.0/24 dev")
		}) {
			t.Errorf("it is still there:\n%s", m.text())
		}
	})
}
