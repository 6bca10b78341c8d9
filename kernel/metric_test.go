package kernel_test

import (
	"log/slog"
	"net/netip"
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
		if k.Metric != uint32(test.want) {
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

// preceding are routes of a user that win against ours to peer 2.
var preceding = map[string]struct {
	route kernel.Route
	tos   uint8
	named string
}{
	"a lower metric": {
		kernel.Route{Dst: subnet4(2), Via: public4(9), Dev: "eth0"}, 0, "protocol 4 via 192.0.2.9 dev eth0"},
	"in front": {
		kernel.Route{Dst: subnet4(2), Via: public4(9), Dev: "eth0", Metric: 3}, 0, "protocol 4 via 192.0.2.9 dev eth0"},
	"a TOS": {
		kernel.Route{Dst: subnet4(2), Via: public4(9), Dev: "eth0", Metric: 7}, 0x28, "protocol 4 tos 0x28 via 192.0.2.9 dev eth0"},
	"IPv6, a lower metric": {
		kernel.Route{Dst: subnet6(2), Via: public6(9), Dev: "eth0", Metric: 1023}, 0, "protocol 4 via 2001:db8::9 dev eth0"},
}

// remedy does what an error about a route advises.
func remedy(m machine, r kernel.Route, err error) {
	if real, ok := m.(realMachine); ok {
		_, command, _ := strings.Cut(err.Error(), "`ip ")
		command, _, _ = strings.Cut(command, "`")
		real.ns.IP(command)
		return
	}
	m.remove("route " + r.Dst.String() + " via " + r.Via.String())
}

// It is named at the start and later, whether ours was there first or not.
func TestARouteThatWinsIsNamed(t *testing.T) {
	tests := map[string]func(t *testing.T, m machine, state kernel.State, precede func()) machine{
		"at the start": func(_ *testing.T, m machine, _ kernel.State, precede func()) machine {
			precede()
			return m
		},
		"beside routes of an earlier run": func(t *testing.T, m machine, state kernel.State, precede func()) machine {
			apply(t, m, state)
			precede()
			return m.again(scope)
		},
		"beside a peer that comes": func(t *testing.T, m machine, _ kernel.State, precede func()) machine {
			precede()
			apply(t, m, dual(m.uplinkIndex(), 3))
			return m
		},
		"later": func(t *testing.T, m machine, state kernel.State, precede func()) machine {
			apply(t, m, state)
			precede()
			m.Invalidate()
			return m
		},
	}
	for kind, users := range preceding {
		for name, test := range tests {
			t.Run(kind+" "+name, func(t *testing.T) {
				onBoth(t, func(t *testing.T, m machine) {
					state := dual(m.uplinkIndex(), 2, 3)
					m = test(t, m, state, func() { m.prepend(users.route, users.tos, 4) })
					var err error
					for range 2 { // Also after a retry.
						var stats kernel.Stats
						stats, err = m.Apply(t.Context(), state, false)
						if err == nil || !strings.Contains(err.Error(), "taken by another ("+users.named+")") {
							t.Fatalf("got error %v, want one that names the route", err)
						}
						if stats.Failed[users.route.Dst] == nil || len(stats.Failed) != 1 {
							t.Errorf("got %v, want that %s failed alone", stats.Failed, users.route.Dst)
						}
						mustHave(t, m, " via "+users.route.Via.String()+" dev eth0")
					}
					remedy(m, users.route, err)
					apply(t, m, state)
					mustLack(t, m, " via "+users.route.Via.String())
					mustHave(t, m, peerEntries...)
					mustHave(t, m, "route fd00:5:0:2::/64 via fd00:5:0:2:: dev flannel-v6.1")
				})
			})
		}
	}
}

func TestRoutesThatDoNotWinAreLeftAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		users := []kernel.Route{
			{Dst: subnet4(2), Via: public4(9), Dev: "eth0", Metric: 4}, // Ours has 3.
			{Dst: subnet6(2), Via: public6(9), Dev: "eth0", Metric: 1025},
			{Dst: subnet6(9), Via: public6(9), Dev: "eth0", Metric: 1},
			{Dst: subnet4(9), Via: public4(9), Dev: "eth0"}, // No peer's.
			{Dst: netip.MustParsePrefix("10.5.2.128/25"), Via: public4(9), Dev: "eth0"},
		}
		for _, r := range users {
			m.route(r, 4)
		}
		apply(t, m, dual(m.uplinkIndex(), 2))
		for _, r := range users {
			mustHave(t, m, "route "+r.Dst.String()+" via "+r.Via.String())
		}
		mustHave(t, m, peerEntries...)
	})
}

func routesInside(n *node) string {
	return n.IP("route show root", network4.String()) + n.IP("-6 route show root", network6.String())
}

// An event tells of a route that wins, and of its end.
func TestARouteThatBeginsToWinIsNoticed(t *testing.T) {
	tests := map[string]struct{ add, remove string }{
		"a route":             {"route add 10.5.2.0/24 via 192.0.2.7", "route del 10.5.2.0/24 proto boot metric 0"},
		"of a router":         {"route add 10.5.3.0/24 via 192.0.2.7 proto bgp metric 1", "route del 10.5.3.0/24 proto bgp metric 1"},
		"in front":            {"route prepend 10.5.2.0/24 via 192.0.2.7 metric 3", "route del 10.5.2.0/24 proto boot metric 3"},
		"for a TOS":           {"route add 10.5.2.0/24 tos 0x28 via 192.0.2.7 metric 7", "route del 10.5.2.0/24 tos 0x28"},
		"IPv6":                {"route add fd00:5:0:2::/64 via 2001:db8::9 metric 1023", "route del fd00:5:0:2::/64 metric 1023"},
		"a blackhole":         {"route add blackhole 10.5.2.0/24 proto static", "route del blackhole 10.5.2.0/24 proto static"},
		"a connected network": {"addr add 10.5.2.1/24 dev docker0", "addr del 10.5.2.1/24 dev docker0"},
		"with its device":     {"addr add 10.5.2.1/24 dev docker0", "link del docker0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.AddBridge("docker0")
			changed := follow(t, n.Reconciler)
			state := dual(n.uplink, 2, 3)
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
	apply(t, n, dual(n.uplink, 2, 3))
	for _, route := range []string{
		"fd00:5:0:2::/64 via 2001:db8::7 metric 1025", "fd00:5:0:2::7/128 via 2001:db8::7", "fd00:5:0:9::/64 via 2001:db8::7",
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

// What stands on our device, or has our protocol, is ours to remove.
func TestARouteOfOursThatWinsIsRemoved(t *testing.T) {
	tests := map[string]struct {
		route    kernel.Route
		protocol int
	}{
		"on our device":           {kernel.Route{Dst: subnet4(2), Dev: "flannel.1"}, 3},
		"on our device, in front": {kernel.Route{Dst: subnet4(2), Dev: "flannel.1", Metric: 3}, 3},
		"on our device, IPv6":     {kernel.Route{Dst: subnet6(2), Dev: "flannel-v6.1", Metric: 5}, 3},
		"of our protocol":         {kernel.Route{Dst: subnet4(2), Via: public4(9), Dev: "eth0", Metric: 3}, kernel.RouteProtocol},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, m machine) {
				state := dual(m.uplinkIndex(), 2, 3)
				apply(t, m, state)
				want := m.text()
				m.prepend(test.route, 0, test.protocol)
				m.Invalidate()
				stats, err := m.Apply(t.Context(), state, true)
				if err != nil || stats.Deleted[kernel.TableRoutes] != 1 {
					t.Errorf("got %+v, %v, want it deleted", stats, err)
				}
				if got := m.text(); got != want {
					t.Errorf("got:\n%s\nwant:\n%s", got, want)
				}
				m.Invalidate()
				if stats := apply(t, m, state); stats.Changed() != 0 {
					t.Errorf("a resync changed something: %+v", stats)
				}
			})
		})
	}
}

// Of routes with the same key the kernel replaces the first, whosever it is.
func TestAChangedRouteDoesNotReplaceTheOneInFront(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		direct := func(via netip.Addr) kernel.State {
			return kernel.State{Routes: []kernel.Route{{Dst: subnet4(3), Via: via, Dev: "eth0"}}}
		}
		apply(t, m, direct(public4(3)))
		users := kernel.Route{Dst: subnet4(3), Via: public4(9), Dev: "eth0", Metric: 4}
		m.prepend(users, 0, 4)
		m.Invalidate()
		for _, state := range []kernel.State{direct(public4(3)), direct(public4(4))} {
			stats, err := m.Apply(t.Context(), state, false)
			if err == nil || stats.Failed[subnet4(3)] == nil {
				t.Errorf("got %+v, %v, want that the peer failed", stats, err)
			}
			mustHave(t, m, "route 10.5.3.0/24 via 192.0.2.9 dev eth0 proto ", "route 10.5.3.0/24 via 192.0.2.3 dev eth0")
		}
		m.remove("route 10.5.3.0/24 via 192.0.2.9")
		m.Invalidate()
		apply(t, m, direct(public4(4)))
		mustLack(t, m, "192.0.2.9", "192.0.2.3")
		mustHave(t, m, "route 10.5.3.0/24 via 192.0.2.4 dev eth0")
	})
}
