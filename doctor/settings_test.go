package doctor

import (
	"net/netip"
	"testing"

	"flannel/backend"
	"flannel/backend/vxlan"
	"flannel/kernel"
	"flannel/kernel/look"
	"flannel/network"
	"flannel/status"
)

// TestSettingsThatMatterHere looks at settings that drop packets on some hosts only.
func TestSettingsThatMatterHere(t *testing.T) {
	const bridge, strict = "net.bridge.bridge-nf-call-iptables", "net.ipv4.conf.eth0.rp_filter"
	addr := func(dev, prefix string) kernel.HostAddr {
		return kernel.HostAddr{Addr: netip.MustParsePrefix(prefix), Dev: dev}
	}
	links := []kernel.Link{
		{Index: 1, Name: "lo", Up: true}, {Index: 2, Name: "eth0", Up: true}, {Index: 3, Name: "flannel.1", Kind: kernel.KindVXLAN, Up: true},
		{Index: 4, Name: "cni0", Kind: "bridge", Up: true}, {Index: 5, Name: "docker0", Kind: "bridge", Up: true}, {Index: 6, Name: "eth1", Up: true}, {Index: 7, Name: "eth2"},
	}
	addrs := []kernel.HostAddr{
		addr("lo", "127.0.0.1/8"), addr("eth0", "192.0.2.1/24"), addr("flannel.1", "10.5.1.0/32"), addr("cni0", "10.5.1.1/24"), addr("docker0", "172.17.0.1/16"), addr("eth2", "203.0.113.1/24"),
	}
	by := func(devs ...string) (out []status.Lookup) {
		for _, dev := range devs {
			out = append(out, status.Lookup{Dst: netip.MustParseAddr("192.0.2.2"), Route: look.Route{Dst: netip.MustParsePrefix("192.0.2.0/24"), Dev: dev}})
		}
		return out
	}
	for _, tt := range []struct {
		name, setting, value string
		change               func(*Facts)
		found                bool
	}{
		{"no br_netfilter, no kube-proxy", bridge, "", nil, false},
		{"no br_netfilter", bridge, "", func(f *Facts) { f.KubeProxy = true }, true},
		{"bridged packets pass by, no kube-proxy", bridge, "0", nil, false},
		{"bridged packets pass by", bridge, "0", func(f *Facts) { f.KubeProxy = true }, true},
		{"strict, one uplink", strict, "1", nil, false},
		{"strict, another interface without an address", strict, "1", func(f *Facts) { f.Host.Addrs = append(f.Host.Addrs, addr("eth1", "fe80::1/64")) }, false},
		{"strict, another network", strict, "1", func(f *Facts) { f.Host.Addrs = append(f.Host.Addrs, addr("eth1", "198.51.100.1/24")) }, false},
		{"strict, peers by the uplink", strict, "1", func(f *Facts) { f.Underlay = by("eth0", "eth0") }, false},
		{"strict, a peer by another interface", strict, "1", func(f *Facts) { f.Underlay = by("eth0", "eth1") }, true},
		{"strict, uplink unknown", "net.ipv4.conf.all.rp_filter", "1", func(f *Facts) { f.Daemon.Status.Uplink.Name, f.Underlay = "", by("eth0") }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &Facts{Backends: backend.Table{vxlan.Type}, Host: look.Host{Links: links, Addrs: addrs}, Settings: map[string]string{"net.ipv4.ip_forward": "1", bridge: "1", strict: "0", "net.ipv4.conf.all.rp_filter": "0"}}
			f.Daemon.Status = &network.Status{Network: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}, Uplink: network.UplinkStatus{Name: "eth0"}}
			f.Settings[tt.setting] = tt.value
			if tt.change != nil {
				tt.change(f)
			}
			found := settings.Find(f)
			if len(found) != 1 || found[0].Note == tt.found {
				t.Errorf("got %+v", found)
			}
		})
	}
}

// TestForwardingOfADevice looks at a device that does not forward while the host does:
// in IPv6 the kernel only asks for the host's setting.
func TestForwardingOfADevice(t *testing.T) {
	for name, want := range map[string]int{
		"net.ipv4.conf.flannel/1.forwarding": 1, "net.ipv6.conf.flannel/1.forwarding": 0, "net.ipv6.conf.all.forwarding": 1,
	} {
		f := &Facts{
			Backends: backend.Table{vxlan.Type}, Host: look.Host{Links: look.Links{{Index: 1, Name: "eth0", Up: true}, {Index: 2, Name: "flannel.1", Kind: kernel.KindVXLAN, Up: true}}},
			Settings: map[string]string{
				"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1", "net.bridge.bridge-nf-call-iptables": "1", "net.bridge.bridge-nf-call-ip6tables": "1", name: "0",
			},
		}
		f.Daemon.Status = &network.Status{
			Network: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd00:10:5::/48")}, Uplink: network.UplinkStatus{Name: "eth0"},
		}
		if found := settings.Find(f); len(found) != want {
			t.Errorf("%s: got %+v", name, found)
		}
	}
}
