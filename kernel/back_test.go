package kernel_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/kernel"
)

// flannel makes the calls of flannel v0.28.9 for the routes of its peers.
type flannel struct {
	t      *testing.T
	handle *netlink.Handle
}

func (f flannel) check(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func routeOf(dst netip.Prefix, via netip.Addr, dev int) *netlink.Route {
	return &netlink.Route{
		LinkIndex: dev, Scope: netlink.SCOPE_UNIVERSE, Gw: net.IP(via.AsSlice()),
		Dst: &net.IPNet{IP: net.IP(dst.Addr().AsSlice()), Mask: net.CIDRMask(dst.Bits(), 32)},
	}
}

// tunnel is the route that its vxlan backend replaces and deletes.
func tunnel(dst netip.Prefix, dev int) *netlink.Route {
	r := routeOf(dst, dst.Addr(), dev)
	r.SetFlag(unix.RTNH_F_ONLINK)
	return r
}

// direct is what its host-gw backend does for a lease: a route to the subnet
// that has the gateway and the device stays as it is, another is deleted.
func (f flannel) direct(dst netip.Prefix, via netip.Addr, dev int) {
	f.t.Helper()
	want := routeOf(dst, via, dev)
	there, err := f.handle.RouteListFiltered(unix.AF_INET, &netlink.Route{Dst: want.Dst}, netlink.RT_FILTER_DST)
	f.check(err)
	if len(there) > 0 {
		if there[0].Gw.Equal(want.Gw) && there[0].LinkIndex == dev {
			return
		}
		f.check(f.handle.RouteDel(&there[0]))
	}
	f.check(f.handle.RouteAdd(want))
}

// story collects what the kernel shows after each step.
type story struct {
	n *node
	b strings.Builder
}

func (s *story) tell(step string) {
	s.b.WriteString("# " + step + "\n" + strings.ReplaceAll(s.n.IP("route show root", network4.String()), " \n", "\n") + "\n")
}

func TestAFlannelThatComesBackWithVXLAN(t *testing.T) {
	n := newNode(t)
	f := flannel{t, n.Handle}
	s := story{n: n}
	apply(t, n, single(n.uplink, 2, 3))
	s.tell("what this daemon leaves")
	dev := n.Index("flannel.1")
	f.check(n.Handle.RouteReplace(tunnel(subnet4(2), dev)))
	f.check(n.Handle.RouteReplace(tunnel(subnet4(3), dev)))
	s.tell("flannel has read its leases")
	f.check(n.Handle.RouteDel(tunnel(subnet4(3), dev)))
	s.tell("the lease of 10.5.3.0/24 is gone")
	f.check(n.Handle.RouteReplace(routeOf(subnet4(3), public4(4), n.uplink)))
	s.tell("10.5.3.0/24 is leased again, to a node on the link")
	if got := n.outOf(t, "10.5.3.9"); got != "eth0" {
		t.Errorf("packets leave by %s, not by flannel's route", got)
	}
	n.IP("route flush proto 70")
	s.tell("ip route flush proto 70")
	apply(t, open(t, n.NS, kernel.Options{Scope: scope}), single(n.uplink, 2))
	s.tell("this daemon is back")
	golden(t, s.b.String(), "testdata/back_vxlan.txt")
}

func TestAFlannelThatComesBackWithHostGW(t *testing.T) {
	n := newNode(t)
	f := flannel{t, n.Handle}
	s := story{n: n}
	var state kernel.State
	for _, peer := range []int{2, 3, 4} {
		state.Routes = append(state.Routes, kernel.Route{Dst: subnet4(peer), Via: public4(peer), Dev: "eth0"})
	}
	apply(t, n, state)
	s.tell("what this daemon leaves")
	f.direct(subnet4(2), public4(2), n.uplink)
	f.direct(subnet4(3), public4(3), n.uplink)
	f.direct(subnet4(4), public4(5), n.uplink)
	s.tell("flannel has read its leases; the node of 10.5.4.0/24 has another address")
	f.check(n.Handle.RouteDel(routeOf(subnet4(3), public4(3), n.uplink)))
	f.check(n.Handle.RouteDel(routeOf(subnet4(4), public4(5), n.uplink)))
	s.tell("the leases of 10.5.3.0/24 and 10.5.4.0/24 are gone")
	golden(t, s.b.String(), "testdata/back_hostgw.txt")
}
