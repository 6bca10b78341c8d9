package doctor

import (
	"net/netip"
	"strings"
	"testing"

	"flannel/backend"
	"flannel/kernel"
	"flannel/kernel/look"
	"flannel/network"
)

func TestPublicAddress(t *testing.T) {
	links := []kernel.Link{
		{Index: 1, Name: "eth0", Up: true}, {Index: 2, Name: "eth1", Up: true}, {Index: 3, Name: "eth2"},
		{Index: 6, Name: "wg0", Up: true}, {Index: 4, Name: "docker0", Kind: "bridge", Up: true}, {Index: 5, Name: "kube-ipvs0"},
	}
	addr := func(dev, prefix string) kernel.HostAddr {
		return kernel.HostAddr{Addr: netip.MustParsePrefix(prefix), Dev: dev}
	}
	addrs := []kernel.HostAddr{
		addr("eth0", "192.0.2.1/24"), addr("eth1", "198.51.100.1/24"), addr("eth2", "203.0.113.1/24"), addr("docker0", "172.17.0.1/16"), addr("kube-ipvs0", "10.96.0.1/32"), addr("wg0", "10.99.0.1/24"),
	}
	for _, tt := range []struct {
		public, node, says string
		note               bool
	}{
		{"192.0.2.1", "192.0.2.1", "", false},
		{"192.0.2.1", "", "", false},
		{"192.0.2.1", "198.51.100.1", "the public address is 192.0.2.1, but the Node has the InternalIP 198.51.100.1", true},
		{"198.51.100.1", "", "the public address 198.51.100.1 is on eth1, but the uplink is eth0", true},
		{"203.0.113.1", "", "the public address 203.0.113.1 is on eth2, which is down", false},
		{"172.17.0.1", "", "the public address 172.17.0.1 is on docker0, which other nodes do not reach", false},
		{"10.96.0.1", "", "the public address 10.96.0.1 is on kube-ipvs0, which other nodes do not reach", false},
		{"10.99.0.1", "192.0.2.9", "the public address 10.99.0.1 is on wg0, but the uplink is eth0\nthe public address is 10.99.0.1, but the Node has the InternalIP 192.0.2.9", true},
		{"203.0.113.9", "", "no interface of this host has the public address 203.0.113.9: something must translate it to 192.0.2.1", true},
	} {
		f := &Facts{Host: look.Host{Links: links, Addrs: addrs}, Store: &Store{}, Daemon: Daemon{Status: &network.Status{
			Lease:  network.LeaseStatus{PublicIP: []netip.Addr{netip.MustParseAddr(tt.public)}},
			Uplink: network.UplinkStatus{Name: "eth0", Addr: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		}}}
		if tt.node != "" {
			f.Store.InternalIPs = []netip.Addr{netip.MustParseAddr(tt.node)}
		}
		var got []string
		for _, found := range publicAddress.Find(f) {
			got = append(got, found.Problem)
			if found.Note != tt.note {
				t.Errorf("%s: note %v", found.Problem, found.Note)
			}
		}
		if strings.Join(got, "\n") != tt.says {
			t.Errorf("%s: got %q, want %q", tt.public, got, tt.says)
		}
	}
}

func TestAVPNThatIsTheUplink(t *testing.T) {
	addr := func(dev, prefix string) kernel.HostAddr {
		return kernel.HostAddr{Addr: netip.MustParsePrefix(prefix), Dev: dev}
	}
	for _, vpn := range []kernel.Link{{Index: 2, Name: "wg0", Up: true}, {Index: 2, Name: "tailscale0", Kind: kernel.KindTUN, Up: true}, {Index: 2, Name: "home", Kind: "wireguard", Up: true}} {
		public := netip.MustParseAddr("10.99.0.1")
		f := &Facts{
			Host: look.Host{
				Links: look.Links{{Index: 1, Name: "eth0", Up: true}, vpn},
				Addrs: []kernel.HostAddr{addr("eth0", "192.0.2.1/24"), addr(vpn.Name, "10.99.0.1/24")},
			},
			Store: &Store{InternalIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
			Daemon: Daemon{Status: &network.Status{
				Lease: network.LeaseStatus{PublicIP: []netip.Addr{public}}, Uplink: network.UplinkStatus{Name: vpn.Name, Addr: []netip.Addr{public}},
			}},
		}
		found := publicAddress.Find(f)
		if len(found) != 1 || found[0].Note || found[0].Problem != "the public address 10.99.0.1 is on "+vpn.Name+", a VPN, but the Node's InternalIP 192.0.2.1 is on eth0" ||
			!strings.HasPrefix(found[0].Command, "add --iface-can-reach=ADDRESS to the arguments of flanneld") {
			t.Errorf("%s: got %+v", vpn.Name, found)
		}
		s := f.Daemon.Status
		s.Uplink.Why, s.Peers = "default route", []network.Peer{{Probe: &backend.Probed{Verdict: backend.Broken}}, {}}
		if found := publicAddress.Find(f); len(found) != 1 || found[0].Note {
			t.Errorf("%s, by the default route: got %+v", vpn.Name, found)
		}
		s.Uplink.Why = "--iface=" + vpn.Name
		if found := publicAddress.Find(f); len(found) != 1 || !found[0].Note {
			t.Errorf("%s, by a flag: got %+v", vpn.Name, found)
		}
		s.Uplink.Why, s.Peers[1].Probe = "default route", &backend.Probed{Verdict: backend.Fine}
		if found := publicAddress.Find(f); len(found) != 1 || !found[0].Note {
			t.Errorf("%s, peers answer: got %+v", vpn.Name, found)
		}
		s.Uplink.Why, s.Peers = "", nil
		f.Host.Links[0].Up = false
		if found := publicAddress.Find(f); len(found) != 1 || !found[0].Note {
			t.Errorf("%s, the other interface is down: got %+v", vpn.Name, found)
		}
	}
}
