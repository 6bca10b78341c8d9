package doctor

import (
	"net/netip"
	"testing"

	"flannel/backend"
	"flannel/backend/vxlan"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/kernel/look"
	"flannel/network"
	"flannel/subnet/env"
)

// TestMTUWithTwoInstances has another overlay on the host, with a smaller MTU.
func TestMTUWithTwoInstances(t *testing.T) {
	local := netip.MustParseAddr("192.0.2.1")
	f := &Facts{
		Backends:   backend.Table{vxlan.Type},
		SubnetFile: SubnetFile{Env: &env.Env{Subnet: ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.5.1.1/24")}, MTU: 1450}},
		Host: look.Host{
			Links: []kernel.Link{
				{Index: 1, Name: "eth0", MTU: 1500, Up: true},
				{Index: 2, Name: "flannel.1", Kind: kernel.KindVXLAN, MTU: 1450, VXLAN: kernel.VXLAN{Uplink: 1, Local: local}},
				{Index: 3, Name: "flannel.7", Kind: kernel.KindVXLAN, MTU: 1300, VXLAN: kernel.VXLAN{Uplink: 1, Local: local}},
			},
			Addrs: []kernel.HostAddr{
				{Addr: netip.MustParsePrefix("10.5.1.0/32"), Dev: "flannel.1"}, {Addr: netip.MustParsePrefix("10.7.1.0/32"), Dev: "flannel.7"},
			},
		},
	}
	if found := mtu.Find(f); len(found) != 0 {
		t.Errorf("without a daemon: got %+v", found)
	}
	f.Daemon.Status = &network.Status{Uplink: network.UplinkStatus{Name: "eth0"}, Devices: []network.DeviceStatus{{Name: "flannel.1", MTU: 1450}}}
	if found := mtu.Find(f); len(found) != 0 {
		t.Errorf("got %+v", found)
	}
	f.Host.Links[1].MTU = 1300
	if found := mtu.Find(f); len(found) != 1 {
		t.Errorf("got %+v", found)
	}
}
