package kernel_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"flannel/internal/testkit/nstest"
	"flannel/kernel"
	"flannel/kernel/kerneltest"
)

// machine is a kernel, real or fake, with somebody else who works on it.
type machine interface {
	applier
	Invalidate()
	Destinations(ctx context.Context) ([]netip.Prefix, error)
	// again is a daemon that starts on the same machine.
	again(s kernel.Scope) machine
	// uplinkIndex is that of eth0.
	uplinkIndex() int
	// lock holds an instance as a daemon that runs does.
	lock(instance string) (io.Closer, error)
	// device adds a vxlan device as flannel does.
	device(d kernel.Device)
	// route adds a route as somebody else.
	route(r kernel.Route, protocol int)
	// prepend does the same for packets with a TOS, in front of other routes.
	prepend(r kernel.Route, tos uint8, protocol int)
	// remove removes entries as somebody else.
	remove(entry string)
	// text holds all entries.
	text() string
}

type realMachine struct {
	*kernel.Reconciler
	t     testing.TB
	ns    *nstest.NS
	locks string
}

func (m realMachine) uplinkIndex() int { return m.ns.Index("eth0") }
func (m realMachine) text() string     { return m.ns.Dump() }

func (m realMachine) again(s kernel.Scope) machine {
	return realMachine{open(m.t, m.ns, kernel.Options{Scope: s, LockDir: m.locks}), m.t, m.ns, m.locks}
}

func (m realMachine) lock(instance string) (c io.Closer, err error) {
	var held *kernel.InstanceLock
	if m.ns.Do(func() { held, err = kernel.LockInstance(m.locks, instance) }); err != nil {
		return nil, err
	}
	return held, nil
}

func (m realMachine) device(d kernel.Device) {
	v := d.VXLAN
	m.ns.IP("link add", d.Name, "address", d.MAC.String(), "mtu", strconv.Itoa(d.MTU), "type vxlan nolearning dstport 8472",
		"id", strconv.Itoa(v.VNI), "local", v.Local.String(), "dev eth0")
	m.ns.IP("addr add", d.Addrs[0].String(), "dev", d.Name)
	m.ns.Up(d.Name)
}

func (m realMachine) route(r kernel.Route, protocol int) {
	line := strings.TrimPrefix(r.String(), "route ")
	m.ns.IP("route add", line, "proto", strconv.Itoa(protocol))
}

func (m realMachine) prepend(r kernel.Route, tos uint8, protocol int) {
	line := strings.TrimPrefix(r.String(), "route ")
	m.ns.IP("route prepend", line, fmt.Sprintf("tos %#x", tos), "proto", strconv.Itoa(protocol))
}

func (m realMachine) remove(entry string) {
	table, rest, _ := strings.Cut(entry, " ")
	if table == "fdb" {
		m.ns.Bridge("fdb del", rest)
		return
	}
	m.ns.IP(table, "del", rest)
}

type fakeMachine struct {
	*kerneltest.Fake
	uplink int
}

func (m fakeMachine) uplinkIndex() int                   { return m.uplink }
func (m fakeMachine) text() string                       { return m.String() }
func (m fakeMachine) again(s kernel.Scope) machine       { return fakeMachine{m.Restart(s), m.uplink} }
func (m fakeMachine) lock(i string) (io.Closer, error)   { return m.Lock(i) }
func (m fakeMachine) device(d kernel.Device)             { m.AddDevice(d) }
func (m fakeMachine) route(r kernel.Route, protocol int) { m.AddRoute(r, protocol) }
func (m fakeMachine) remove(entry string)                { m.Delete(entry) }

func (m fakeMachine) prepend(r kernel.Route, tos uint8, protocol int) {
	m.PrependRoute(r, tos, protocol)
}

// onBoth runs a test on the real kernel and on the fake.
func onBoth(t *testing.T, test func(t *testing.T, m machine)) {
	t.Run("netlink", func(t *testing.T) {
		ns := nstest.New(t)
		ns.AddUplink("eth0", "192.0.2.1/24", "2001:db8::1/64")
		locks := filepath.Join(t.TempDir(), "lock")
		test(t, realMachine{open(t, ns, kernel.Options{Scope: scope, LockDir: locks}), t, ns, locks})
	})
	t.Run("fake", func(t *testing.T) {
		f := kerneltest.New(scope)
		test(t, fakeMachine{f, f.AddLink("eth0", 1500)})
	})
}

func mustHave(t *testing.T, m machine, entries ...string) {
	t.Helper()
	for _, e := range entries {
		if !strings.Contains(m.text(), e) {
			t.Errorf("%q is missing in:\n%s", e, m.text())
		}
	}
}

func mustLack(t *testing.T, m machine, entries ...string) {
	t.Helper()
	for _, e := range entries {
		if strings.Contains(m.text(), e) {
			t.Errorf("%q is still there:\n%s", e, m.text())
		}
	}
}

// peerEntries are those of the IPv4 peer 2.
var peerEntries = []string{
	"fdb 02:00:00:00:00:02 dev flannel.1 dst 192.0.2.2",
	"neigh 10.5.2.0 dev flannel.1 lladdr 02:00:00:00:00:02",
	"route 10.5.2.0/24 via 10.5.2.0 dev flannel.1",
}

func TestPeersComeAndGo(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		up := m.uplinkIndex()
		apply(t, m, single(up, 2, 3))
		mustHave(t, m, peerEntries...)
		if stats := apply(t, m, single(up, 2, 3)); stats.Changed() != 0 || stats.Listed {
			t.Errorf("a pass without changes: got %+v", stats)
		}
		stats := apply(t, m, single(up, 3))
		mustLack(t, m, peerEntries...)
		if got := stats.Changed(); got != 3 || stats.Listed {
			t.Errorf("one peer left: got %+v, want three deletions and no list", stats)
		}
	})
}

func TestHeldDeletionsWait(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		up := m.uplinkIndex()
		apply(t, m, single(up, 2))
		stats, err := m.Apply(t.Context(), single(up, 3), true)
		if err != nil || stats.Held != 3 || len(stats.Deleted) != 0 {
			t.Errorf("got %+v, %v; want three held and none deleted", stats, err)
		}
		mustHave(t, m, peerEntries...)
		mustHave(t, m, "route 10.5.3.0/24")
		if stats := apply(t, m, single(up, 3)); stats.Deleted[kernel.TableRoutes] != 1 || stats.Held != 0 {
			t.Errorf("got %+v, want the route deleted", stats)
		}
		mustLack(t, m, peerEntries...)
	})
}

func TestResyncCountsDrift(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		state := single(m.uplinkIndex(), 2, 3)
		apply(t, m, state)
		m.remove("route 10.5.2.0/24")
		m.remove("neigh 10.5.3.0 dev flannel.1")
		m.remove("fdb 02:00:00:00:00:02 dev flannel.1")
		m.route(kernel.Route{Dst: subnet4(7), Dev: "flannel.1"}, kernel.RouteProtocol)
		m.Invalidate()
		stats := apply(t, m, state)
		mustHave(t, m, peerEntries...)
		mustLack(t, m, "route 10.5.7.0/24")
		for _, table := range []string{kernel.TableNeighbors, kernel.TableFDB} {
			if stats.Drift[table] != 1 {
				t.Errorf("drift of %s: got %d, want 1", table, stats.Drift[table])
			}
		}
		if stats.Drift[kernel.TableRoutes] != 2 {
			t.Errorf("drift of routes: got %d, want 2", stats.Drift[kernel.TableRoutes])
		}
	})
}

func TestForeignRouteInTheWayStays(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		foreign := kernel.Route{Dst: subnet4(2), Via: public4(9), Dev: "eth0"}
		m.route(foreign, 4)
		state := single(m.uplinkIndex(), 2, 3)
		stats, err := m.Apply(t.Context(), state, false)
		if err == nil || !strings.Contains(err.Error(), "ip route del 10.5.2.0/24") {
			t.Errorf("got error %v, want one that says how to remove the route", err)
		}
		if stats.Failed[subnet4(2)] == nil || stats.Failed[subnet4(3)] != nil || stats.DeviceErr != nil {
			t.Errorf("got %+v, want that only the first peer failed", stats)
		}
		mustHave(t, m, foreign.String(), "route 10.5.3.0/24")
		m.remove("route 10.5.2.0/24")
		apply(t, m, state)
		mustHave(t, m, peerEntries...)
	})
}

func TestIncompatibleDeviceIsReplaced(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		state := single(m.uplinkIndex(), 2)
		apply(t, m, state)
		changed := single(m.uplinkIndex(), 2)
		changed.Devices[0].VXLAN.Port = 4789
		stats := apply(t, m, changed)
		mustHave(t, m, peerEntries...)
		mustHave(t, m, "port 4789", "addr 10.5.1.0/32 dev flannel.1")
		if stats.Drift[kernel.TableDevices] != 0 {
			t.Errorf("got drift %v, but the change was asked for", stats.Drift)
		}
	})
}

func TestRouteOverAMissingDeviceFailsAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		state := single(m.uplinkIndex(), 2, 3)
		apply(t, m, state)
		missing := single(m.uplinkIndex(), 3)
		missing.Routes = append(missing.Routes, kernel.Route{Dst: subnet4(9), Via: public4(9), Dev: "eth7"})
		stats, err := m.Apply(t.Context(), missing, false)
		if err == nil || stats.Failed[subnet4(9)] == nil || stats.DeviceErr != nil {
			t.Errorf("got %+v, %v; want that the direct peer failed", stats, err)
		}
		mustHave(t, m, peerEntries...) // Deletions wait.
		mustHave(t, m, "route 10.5.3.0/24")
	})
}

func TestOtherRouteKinds(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		state := single(m.uplinkIndex())
		state.Routes = []kernel.Route{
			{Dst: subnet4(1), Blackhole: true},
			{Dst: subnet6(1), Blackhole: true},
			{Dst: network4, Dev: "flannel.1", Metric: 100},
			{Dst: subnet4(9), Via: public4(9), Dev: "eth0"},
			{Dst: subnet6(9), Via: public6(9), Dev: "eth0"},
		}
		apply(t, m, state)
		mustHave(t, m, "route blackhole 10.5.1.0/24", "route blackhole fd00:5:0:1::/64", "route 10.5.0.0/16 dev flannel.1",
			"route 10.5.9.0/24 via 192.0.2.9 dev eth0", "route fd00:5:0:9::/64 via 2001:db8::9 dev eth0")
		m.Invalidate()
		if stats := apply(t, m, state); stats.Changed() != 0 {
			t.Errorf("resync changed something: %+v", stats)
		}
		apply(t, m, single(m.uplinkIndex()))
		mustLack(t, m, "blackhole", "10.5.0.0/16", "10.5.9.0/24", "fd00:5:0:9::/64")
	})
}
