package doctor

import (
	"net/netip"
	"strings"
	"testing"

	"flannel/backend"
	"flannel/backend/vxlan"
	"flannel/kernel"
	"flannel/kernel/look"
	"flannel/network"
)

// TestWhereToLook has a broken peer, node-b at 192.0.2.2, and another one.
func TestWhereToLook(t *testing.T) {
	const dead = "no answer: the way to 192.0.2.2 or a firewall of a host drops the packets"
	const trace = "; if it finds nothing, tcpdump -ni any udp port 8472 and host 192.0.2.2, on both nodes"
	const accept = ": 203.0.113.1 and node-b (192.0.2.2), and each firewall between them, must accept UDP port 8472 from each other"
	for _, tt := range []struct {
		name   string
		probe  backend.Probed
		other  backend.Verdict
		change func(*network.Peer)
		want   string
	}{
		{"both ways", backend.Probed{Why: dead}, backend.Fine, nil, "flanneld doctor, on node-b (192.0.2.2), as other peers answer" + trace + accept},
		{"no peer answers", backend.Probed{Why: dead}, backend.Broken, nil, "flanneld doctor, on this node first, as no peer answers" + trace + accept},
		{"nothing is known of others", backend.Probed{Why: dead}, backend.Silent, nil, "flanneld doctor, on both nodes" + trace + accept},
		{
			"one way", backend.Probed{Why: "no answer, but its own probes arrive here: the way there is cut, the way back works", Cause: backend.WayThere}, backend.Fine, nil,
			"flanneld doctor, on node-b (192.0.2.2): it, and each firewall on the way there, must accept UDP port 8472 from 203.0.113.1; the way back works",
		},
		{
			"with etcd", backend.Probed{Why: dead, Cause: backend.WayThere}, backend.Fine, func(p *network.Peer) { p.Name = "10.5.2.0-24" },
			"flanneld doctor, on 192.0.2.2: it, and each firewall on the way there, must accept UDP port 8472 from 203.0.113.1; the way back works",
		},
		{"the size", backend.Probed{Why: "packets of 1450 bytes are lost on the way, small ones are not: set Backend.MTU to 1350", Cause: backend.TooLarge}, backend.Fine, nil, "set Backend.MTU to 1350"},
		{"the size, not known yet", backend.Probed{Why: "packets of 1450 bytes are lost on the way, small ones are not", Cause: backend.TooLarge}, backend.Fine, nil, "flanneld status 10.5.2.0/24"},
		{"OUTPUT of this host", backend.Probed{Why: "packets do not leave this host: operation not permitted", Cause: backend.Local}, backend.Fine, nil, "ip route get 192.0.2.2; iptables -S OUTPUT; nft list ruleset"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.probe.Verdict = backend.Broken
			p := network.Peer{Name: "node-b", Subnet: "10.5.2.0/24", Via: "192.0.2.2", How: "tunnel", Probe: &tt.probe}
			if tt.change != nil {
				tt.change(&p)
			}
			f := &Facts{
				Backends: backend.Table{vxlan.Type},
				Host:     look.Host{Links: look.Links{{Name: "flannel.1", Kind: kernel.KindVXLAN, VXLAN: kernel.VXLAN{Port: 8472}}}},
				Daemon: Daemon{Status: &network.Status{
					Lease: network.LeaseStatus{PublicIP: []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("203.0.113.1")}},
					Uplink: network.UplinkStatus{
						Name: "eth0", Addr: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, Why: "--iface eth0",
					},
					Peers: []network.Peer{p, {Name: "node-c", Via: "192.0.2.3", How: "tunnel", Probe: &backend.Probed{Verdict: tt.other}}},
				}},
			}
			found := overlay.Find(f)
			if len(found) == 0 || found[0].Command != tt.want {
				t.Errorf("got  %+v\nwant %s", found, tt.want)
			}
			const ends = "this node sends from 192.0.2.1 of eth0, found by --iface eth0; its public address is 203.0.113.1, that of the peer is 192.0.2.2"
			if named := strings.HasSuffix(found[0].Problem, "; "+ends); named != strings.HasPrefix(tt.want, "flanneld doctor") {
				t.Errorf("got %s", found[0].Problem)
			}
		})
	}
}
