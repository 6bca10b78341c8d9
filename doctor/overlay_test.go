package doctor

import (
	"net/netip"
	"testing"

	"flannel/backend"
	"flannel/backend/vxlan"
	"flannel/kernel"
	"flannel/network"
)

// TestWhereToLook has a broken peer, node-b at 192.0.2.2, and another one.
func TestWhereToLook(t *testing.T) {
	const dead = "no answer: the way to 192.0.2.2 or a firewall of a host drops the packets"
	const both = "iptables -S INPUT; nft list ruleset; tcpdump -ni any udp port 8472 and host 192.0.2.2, on both nodes"
	const accept = ": 192.0.2.1 and node-b (192.0.2.2), and each firewall between them, must accept UDP port 8472 from each other"
	for _, tt := range []struct {
		name   string
		probe  backend.Probed
		other  backend.Verdict
		change func(*network.Peer)
		want   string
	}{
		{"both ways", backend.Probed{Why: dead}, backend.Fine, nil, both + accept},
		{"no peer answers", backend.Probed{Why: dead}, backend.Broken, nil, both + ", on this one first, as no peer answers" + accept},
		{
			"one way", backend.Probed{Why: "no answer, but its own probes arrive here: the way there is cut, the way back works", WayBack: true}, backend.Fine, nil,
			"iptables -S INPUT; nft list ruleset, on node-b (192.0.2.2): it, and each firewall on the way there, must accept UDP port 8472 from 192.0.2.1; the way back works",
		},
		{
			"with etcd", backend.Probed{Why: dead, WayBack: true}, backend.Fine, func(p *network.Peer) { p.Name = "10.5.2.0-24" },
			"iptables -S INPUT; nft list ruleset, on 192.0.2.2: it, and each firewall on the way there, must accept UDP port 8472 from 192.0.2.1; the way back works",
		},
		{"the size", backend.Probed{Why: "packets of 1450 bytes are lost on the way, small ones are not: set Backend.MTU to 1350"}, backend.Fine, nil, "set Backend.MTU to 1350"},
		{"the size, not known yet", backend.Probed{Why: "packets of 1450 bytes are lost on the way, small ones are not"}, backend.Fine, nil, "flanneld status node-b"},
		{"OUTPUT of this host", backend.Probed{Why: "packets do not leave this host: operation not permitted"}, backend.Fine, nil, "ip route get 192.0.2.2; iptables -S OUTPUT; nft list ruleset"},
		{"without a tunnel", backend.Probed{Why: dead}, backend.Fine, func(p *network.Peer) { p.How = "direct" }, "flanneld status node-b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.probe.Verdict = backend.Broken
			p := network.Peer{Name: "node-b", Subnet: "10.5.2.0/24", Via: "192.0.2.2", How: "tunnel", Probe: &tt.probe}
			if tt.change != nil {
				tt.change(&p)
			}
			f := &Facts{
				Backends: backend.Table{vxlan.Type},
				Links:    []kernel.Link{{Name: "flannel.1", Kind: kernel.KindVXLAN, VXLAN: kernel.VXLAN{Port: 8472}}},
				Daemon: Daemon{Status: &network.Status{
					Lease: network.LeaseStatus{PublicIP: []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")}},
					Peers: []network.Peer{p, {Name: "node-c", Via: "192.0.2.3", How: "tunnel", Probe: &backend.Probed{Verdict: tt.other}}},
				}},
			}
			if found := overlay.Find(f); len(found) == 0 || found[0].Command != tt.want {
				t.Errorf("got  %+v\nwant %s", found, tt.want)
			}
		})
	}
}
