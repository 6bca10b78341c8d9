package kernel_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/kernel"
)

func TestFlannelsRoutesAreAdoptedOnce(t *testing.T) {
	adopting := scope
	adopting.Adopt = []kernel.Adoption{{Network: network4, Bits: 24, Dev: "eth0"}}
	onBoth(t, func(t *testing.T, m machine) {
		up := m.uplinkIndex()
		m.device(single(up).Devices[0])
		m.route(kernel.Route{Dst: subnet4(2), Via: subnet4(2).Addr(), Dev: "flannel.1", OnLink: true}, 3)
		m.route(kernel.Route{Dst: subnet4(5), Via: subnet4(5).Addr(), Dev: "flannel.1", OnLink: true}, 3)
		m.route(kernel.Route{Dst: subnet4(6), Via: public4(6), Dev: "eth0"}, 3)
		m.route(kernel.Route{Dst: netip.MustParsePrefix("10.5.7.0/25"), Via: public4(7), Dev: "eth0"}, 3)
		m.route(kernel.Route{Dst: subnet4(8), Via: public4(8), Dev: "eth0"}, 4)

		first := m.again(adopting)
		if stats, err := first.Apply(t.Context(), single(up, 2), true); err != nil || stats.Held != 2 {
			t.Errorf("held: got %+v, %v, want two", stats, err)
		}
		mustHave(t, m, "route 10.5.5.0/24", "route 10.5.6.0/24")
		apply(t, first, single(up, 2))
		mustHave(t, m, peerEntries...)
		mustLack(t, m, "route 10.5.5.0/24", "route 10.5.6.0/24", "10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink proto 3")
		mustHave(t, m, "route 10.5.7.0/25", "route 10.5.8.0/24")

		m.route(kernel.Route{Dst: subnet4(6), Via: public4(6), Dev: "eth0"}, 3)
		apply(t, m.again(adopting), single(up, 2))
		mustHave(t, m, "route 10.5.6.0/24")
	})
}

// A node that flannel served between two runs of ours has its routes on our
// device, and there are others that a user may have made.
func TestFlannelsRoutesOnOurDeviceAreAlwaysOurs(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		up := m.uplinkIndex()
		flannels := []kernel.Route{
			{Dst: subnet4(5), Via: subnet4(5).Addr(), Dev: "flannel.1", OnLink: true},
			{Dst: netip.MustParsePrefix("10.4.9.0/24"), Via: netip.MustParseAddr("10.4.9.0"), Dev: "flannel.1", OnLink: true},
			{Dst: subnet6(5), Via: subnet6(5).Addr(), Dev: "flannel-v6.1", OnLink: true},
		}
		users := []kernel.Route{
			{Dst: subnet4(6), Via: subnet4(2).Addr(), Dev: "flannel.1", OnLink: true},
			{Dst: subnet4(7), Dev: "flannel.1"},
			{Dst: netip.MustParsePrefix("10.77.1.0/24"), Via: netip.MustParseAddr("10.77.1.0"), Dev: "flannel.1", OnLink: true},
		}
		previous := scope
		previous.Networks = append([]netip.Prefix{netip.MustParsePrefix("10.4.0.0/16")}, scope.Networks...)
		first := m.again(previous)
		apply(t, first, dual(up, 2))
		for _, r := range append(slices.Clone(flannels), users...) {
			m.route(r, 3)
		}
		static := kernel.Route{Dst: subnet4(8), Via: subnet4(8).Addr(), Dev: "flannel.1", OnLink: true}
		m.route(static, 4)

		second := m.again(previous)
		held, err := second.Destinations(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range flannels {
			if !slices.Contains(held, r.Dst) {
				t.Errorf("held %v lacks %s, which may be a peer's", held, r.Dst)
			}
		}
		if stats, err := second.Apply(t.Context(), dual(up, 2), true); err != nil || stats.Held != len(flannels) {
			t.Errorf("held: got %+v, %v, want %d", stats, err, len(flannels))
		}
		apply(t, second, dual(up, 2))
		for _, r := range flannels {
			mustLack(t, m, "route "+r.Dst.String())
		}
		for _, r := range append(users, static) {
			mustHave(t, m, "route "+r.Dst.String())
		}
		mustHave(t, m, peerEntries...)
	})
}

// Only what is there when this software first looks can be flannel's.
func TestUsersRoutesAreNotAdopted(t *testing.T) {
	adopting := scope
	adopting.Adopt = []kernel.Adoption{{Network: network4, Bits: 24, Dev: "eth0"}}
	known := adopting
	known.Known = true
	users := kernel.Route{Dst: subnet4(250), Via: public4(9), Dev: "eth0"}
	flannels := kernel.Route{Dst: subnet4(5), Via: public4(5), Dev: "eth0"}
	tests := []struct {
		name string
		run  func(t *testing.T, m machine, state kernel.State)
	}{
		{"restart of a node without peers", func(t *testing.T, m machine, state kernel.State) {
			apply(t, m, state)
			m.route(users, 3)
			apply(t, m.again(adopting), state)
		}},
		{"restart without a device", func(t *testing.T, m machine, state kernel.State) {
			m.route(users, 3)
			apply(t, m.again(known), kernel.State{})
		}},
		{"added after the routes were counted", func(t *testing.T, m machine, state kernel.State) {
			m.device(state.Devices[0])
			m.route(flannels, 3)
			first := m.again(adopting)
			if held, err := first.Destinations(t.Context()); err != nil || !slices.Equal(held, []netip.Prefix{flannels.Dst}) {
				t.Errorf("held: got %v, %v, want only flannel's", held, err)
			}
			m.route(users, 3)
			apply(t, first, state)
		}},
		{"added while deletions are held back", func(t *testing.T, m machine, state kernel.State) {
			m.device(state.Devices[0])
			m.route(flannels, 3)
			first := m.again(adopting)
			if _, err := first.Apply(t.Context(), state, true); err != nil {
				t.Fatal(err)
			}
			m.route(users, 3)
			first.Invalidate()
			apply(t, first, state)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, m machine) {
				test.run(t, m, single(m.uplinkIndex()))
				mustHave(t, m, users.String())
				mustLack(t, m, flannels.String())
			})
		})
	}
}

// another starts a daemon with an overlay of its own beside m, with one peer.
func another(t *testing.T, m machine) machine {
	theirs := m.again(kernel.Scope{Networks: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}, Instance: "two"})
	state := kernel.State{Devices: []kernel.Device{{
		Name: "flannel.2", MTU: 1450, MAC: mac(1), Addrs: []netip.Prefix{netip.MustParsePrefix("10.99.1.0/32")},
		VXLAN: &kernel.VXLAN{VNI: 2, Local: public4(1), Uplink: m.uplinkIndex()},
	}}}
	addPeer(&state, "flannel.2", netip.MustParsePrefix("10.99.2.0/24"), public4(2), mac(2))
	apply(t, theirs, state)
	return theirs
}

func TestTwoInstancesLeaveEachOtherAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		up := m.uplinkIndex()
		first, err := m.lock("one")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = first.Close() }()
		apply(t, m, single(up, 2))
		theirs := another(t, m)
		m.Invalidate()
		if stats := apply(t, m, single(up, 2)); stats.Changed() != 0 {
			t.Errorf("the second instance disturbed the first: %+v", stats)
		}
		mustHave(t, m, peerEntries...)
		mustHave(t, m, "route 10.99.2.0/24 via 10.99.2.0 dev flannel.2")

		before := m.text()
		stats, err := theirs.Apply(t.Context(), single(up, 3), false)
		if err == nil || stats.DeviceErr == nil || !strings.Contains(err.Error(), `its alias is "flanneld one"`) {
			t.Errorf("got %v, want an error that names the other instance", err)
		}
		if stats.Failed[subnet4(3)] == nil {
			t.Error("the peer behind the device must have failed")
		}
		if m.text() != before {
			t.Errorf("got:\n%s\nwant no change:\n%s", m.text(), before)
		}
	})
}

// successor is a daemon with another instance beside one that runs and has
// applied first. end ends that one.
func successor(t *testing.T, m machine, first kernel.State) (other machine, end func()) {
	t.Helper()
	running, err := m.lock("one")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, m, first)
	renamed := scope
	renamed.Instance = "two"
	return m.again(renamed), func() {
		t.Helper()
		if err := running.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDeviceOfADaemonThatIsGoneIsTakenOver(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		up := m.uplinkIndex()
		other, end := successor(t, m, single(up, 2))
		if _, err := other.Apply(t.Context(), single(up, 2), false); err == nil {
			t.Error("the device of a running daemon was taken")
		}
		end()
		stats := apply(t, other, single(up, 2))
		if stats.Put[kernel.TableDevices] != 1 || stats.Changed() != 1 {
			t.Errorf("got %+v, want only the mark changed", stats)
		}
		mustHave(t, m, peerEntries...)
		mustHave(t, m, `alias "flanneld two"`)
	})
}

func TestOnlyOurOwnFormerDevicesGo(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		up := m.uplinkIndex()
		another(t, m)
		before := m.text()
		apply(t, m, single(up, 2))
		apply(t, m.again(scope), kernel.State{})
		if m.text() != before {
			t.Errorf("got:\n%s\nwant:\n%s", m.text(), before)
		}
	})
}

// A device with another name that has the same VNI is in the way.
func TestVNIOfADaemonThatIsGoneIsTakenOver(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		up := m.uplinkIndex()
		other, end := successor(t, m, single(up, 2))
		state := single(up)
		state.Devices[0].Name = "overlay.1"
		addPeer(&state, "overlay.1", subnet4(2), public4(2), mac(2))
		if _, err := other.Apply(t.Context(), state, false); err == nil || !strings.Contains(err.Error(), "device flannel.1 has VNI 1") {
			t.Errorf("got %v, want an error that names the device in the way", err)
		}
		end()
		apply(t, other, state)
		mustLack(t, m, "flannel.1")
		mustHave(t, m, "route 10.5.2.0/24 via 10.5.2.0 dev overlay.1")
	})
}

func TestAnInstanceRunsOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		long := strings.Repeat("/a-long-prefix", 40)
		for _, instance := range []string{"", "one", long + "/a", long + "/b"} {
			lock, err := m.lock(instance)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.lock(instance); !errors.Is(err, kernel.ErrInstanceLocked) {
				t.Errorf("second lock of %q: got %v, want ErrInstanceLocked", instance, err)
			}
			if err := lock.Close(); err != nil {
				t.Error(err)
			}
			lock, err = m.lock(instance)
			if err != nil {
				t.Errorf("lock after the first ended: %v", err)
				continue
			}
			defer func() { _ = lock.Close() }()
			named := m.again(kernel.Scope{Instance: instance})
			apply(t, named, single(m.uplinkIndex()))
			apply(t, named, kernel.State{})
		}
	})
}

func TestOnlyOurOwnIsDeletedAfterRestart(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		up := m.uplinkIndex()
		keep := []kernel.Route{
			{Dst: netip.MustParsePrefix("198.51.100.0/24"), Via: public4(9), Dev: "eth0"},
			{Dst: subnet4(77), Via: public4(9), Dev: "eth0"},
			{Dst: subnet4(78), Dev: "flannel.1"},
		}
		stale := kernel.Route{Dst: subnet4(66), Via: public4(9), Dev: "eth0"}
		apply(t, m, single(up, 2, 3))
		m.route(keep[0], kernel.RouteProtocol) // Our number, outside our networks.
		m.route(keep[1], 4)
		m.route(keep[2], 3) // On our device, but this is not the first start.
		m.route(stale, kernel.RouteProtocol)

		restarted := m.again(scope)
		held, err := restarted.Destinations(t.Context())
		slices.SortFunc(held, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
		if want := []netip.Prefix{subnet4(2), subnet4(3), subnet4(66)}; err != nil || !slices.Equal(held, want) {
			t.Errorf("held: got %v, %v, want %v", held, err, want)
		}
		apply(t, restarted, single(up, 3))
		mustLack(t, m, peerEntries...)
		mustLack(t, m, "route 10.5.66.0/24")
		mustHave(t, m, "route 10.5.3.0/24", "198.51.100.0/24", "10.5.77.0/24", "10.5.78.0/24")
	})
}

func TestFormerDeviceGoesLast(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		apply(t, m, single(m.uplinkIndex(), 2))
		other := single(m.uplinkIndex())
		other.Devices[0].Name, other.Devices[0].VXLAN.VNI = "flannel.7", 7
		addPeer(&other, "flannel.7", subnet4(2), public4(2), mac(2))
		restarted := m.again(scope)
		if _, err := restarted.Apply(t.Context(), other, true); err != nil {
			t.Fatal(err)
		}
		mustHave(t, m, "link flannel.1 ", "link flannel.7 ", "route 10.5.2.0/24 via 10.5.2.0 dev flannel.7")
		apply(t, restarted, other)
		mustLack(t, m, "flannel.1 ")
		mustHave(t, m, "route 10.5.2.0/24 via 10.5.2.0 dev flannel.7")
	})
}

func TestTUNDeviceOfADaemonThatIsGoneIsTakenOver(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		other, end := successor(t, m, overTUN())
		if _, err := other.Apply(t.Context(), overTUN(), false); err == nil || !strings.Contains(err.Error(), "another daemon that is running") {
			t.Errorf("got %v, want that the device is taken", err)
		}
		end()
		if stats := apply(t, other, overTUN()); stats.Changed() != 1 {
			t.Errorf("got %+v, want only the mark changed", stats)
		}
	})
}

// A family whose device cannot be made keeps its own entries and nobody else's.
func TestAFamilyThatCannotBeMadeHoldsOnlyItself(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		up := m.uplinkIndex()
		former := single(up)
		former.Devices[0].Name, former.Devices[0].VXLAN.VNI = "flannel.7", 7
		addPeer(&former, "flannel.7", subnet4(2), public4(2), mac(2))
		direct4, direct6 := kernel.Route{Dst: subnet4(5), Via: public4(5), Dev: "eth0"}, kernel.Route{Dst: subnet6(5), Via: public6(5), Dev: "eth0"}
		former.Routes = append(former.Routes, direct4, direct6)
		apply(t, m, former)
		theirs := dual(up).Devices[1]
		theirs.Name = "theirs"
		m.device(theirs)

		restarted := m.again(scope)
		stats, err := restarted.Apply(t.Context(), dual(up, 2, 3), false)
		if err == nil || stats.DeviceErr == nil || stats.Broken != (ipfam.Pair[bool]{false, true}) {
			t.Errorf("got %+v, %v; want that IPv6 is broken", stats, err)
		}
		mustHave(t, m, peerEntries...)
		mustHave(t, m, direct6.String())
		mustLack(t, m, direct4.String(), "link flannel.7")
		if _, err := restarted.Apply(t.Context(), dual(up, 3), false); err == nil {
			t.Error("IPv6 is in order")
		}
		mustLack(t, m, peerEntries...)
		mustHave(t, m, "route 10.5.3.0/24", direct6.String())

		m.remove("link theirs")
		apply(t, restarted, dual(up, 3))
		mustHave(t, m, "route fd00:5:0:3::/64")
		mustLack(t, m, direct6.String())
	})
}

// Only what leads to a peer is a reason to keep what a store lacks.
func TestRoutesThatLeadToNoPeerAreNotHeld(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		state := single(m.uplinkIndex(), 2)
		catch := kernel.Route{Dst: network4, Dev: "flannel.1"}
		gap := kernel.Route{Dst: netip.MustParsePrefix("10.5.64.0/18"), Blackhole: true}
		state.Routes = append(state.Routes, catch, gap)
		apply(t, m, state)
		restarted := m.again(scope)
		if held, err := restarted.Destinations(t.Context()); err != nil || !slices.Equal(held, []netip.Prefix{subnet4(2)}) {
			t.Errorf("held: got %v, %v, want only the peer", held, err)
		}
		if _, err := restarted.Apply(t.Context(), single(m.uplinkIndex()), true); err != nil {
			t.Error(err)
		}
		mustHave(t, m, peerEntries...)
		mustHave(t, m, catch.String())
		mustLack(t, m, gap.String())
	})
}
