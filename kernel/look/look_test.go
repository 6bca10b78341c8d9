package look

import (
	"net/netip"
	"testing"

	"flannel/internal/testkit/nstest"
	"flannel/kernel"
)

func TestTheWayOfAPacket(t *testing.T) {
	ns := nstest.New(t)
	for _, command := range []string{
		"link add flannel.1 type vxlan id 1 dstport 8472 local 127.0.0.1 nolearning",
		"link set flannel.1 up", "addr add 10.5.1.0/32 dev flannel.1",
		"route add 10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink proto 70",
		"neigh add 10.5.2.0 dev flannel.1 lladdr 02:00:00:00:00:02 nud permanent",
		"route add blackhole 10.5.3.0/24",
		"-6 route add fd00:2::/64 dev flannel.1 table 9", "-6 rule add from fd00:1::/64 lookup 9",
	} {
		ns.IP(command)
	}
	ns.Bridge("fdb append 02:00:00:00:00:02 dev flannel.1 dst 192.0.2.2")
	ns.Do(func() {
		r, err := Open()
		if err != nil {
			t.Error(err)
			return
		}
		defer r.Close()
		via := netip.MustParseAddr("10.5.2.0")
		want := Route{Dst: netip.MustParsePrefix("10.5.2.0/24"), Via: via, Dev: "flannel.1", Table: 254, Protocol: kernel.RouteProtocol}
		if got, err := r.Lookup(netip.MustParseAddr("10.5.2.7"), netip.Addr{}); got != want || err != nil {
			t.Errorf("lookup: got %+v, %v", got, err)
		}
		if got, err := r.Lookup(netip.MustParseAddr("10.9.9.9"), netip.Addr{}); err == nil {
			t.Errorf("lookup without a route: got %+v", got)
		}
		if got, err := r.Lookup(netip.MustParseAddr("10.5.3.9"), netip.Addr{}); err == nil && got.Type != "blackhole" {
			t.Errorf("lookup of a blackhole: got %+v", got)
		}
		pod, there := netip.MustParseAddr("fd00:1::2"), netip.MustParsePrefix("fd00:2::/64")
		if got, err := r.Lookup(there.Addr().Next(), pod); got.Dst != there || got.Dev != "flannel.1" || got.Table != 9 || err != nil {
			t.Errorf("lookup through a rule: got %+v, %v", got, err)
		}
		mac, err := r.Neighbor("flannel.1", via)
		if err != nil || mac.String() != "02:00:00:00:00:02" {
			t.Errorf("neighbor: got %v, %v", mac, err)
		}
		if dst, err := r.FDB("flannel.1", mac); err != nil || dst.String() != "192.0.2.2" {
			t.Errorf("FDB: got %v, %v", dst, err)
		}
		if mac, err := r.Neighbor("none", via); err != nil || !mac.IsZero() {
			t.Errorf("without a device: got %v, %v", mac, err)
		}
		if list, err := r.Routes(Route.IsOurs); err != nil || len(list) != 1 || list[0] != want {
			t.Errorf("routes: got %+v, %v", list, err)
		}
		l, ok := r.Links().ByName("flannel.1")
		if !ok || !l.Up || l.VXLAN.VNI != 1 || l.VXLAN.Port != 8472 {
			t.Errorf("devices: got %+v", r.Links())
		}
		if _, err := r.Traffic(l); err != nil {
			t.Error(err)
		}
	})
}
