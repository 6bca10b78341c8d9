package doctor

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/network"
	"flannel/subnet/env"
)

func TestBridges(t *testing.T) {
	const outside = "docker0 has 172.17.0.1/16, outside of this node's subnet 10.5.1.0/24: dockerd was not started with it"
	later := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		name string
		// bridges are names and addresses.
		bridges map[string]string
		etcd    bool
		confs   []string
		want    string
	}{
		{"pods", map[string]string{"cni0": "10.5.1.1/24", "docker0": "172.17.0.1/16", "br-1234": "172.18.0.1/16"}, true, []string{"10-flannel.conflist"}, ""},
		{"pods, none yet", map[string]string{"docker0": "172.17.0.1/16"}, true, []string{"10-flannel.conflist"}, ""},
		{"leases in Nodes", map[string]string{"docker0": "172.17.0.1/16"}, false, nil, ""},
		{"Docker", map[string]string{"docker0": "10.5.1.1/24", "br-1234": "172.18.0.1/16"}, true, nil, ""},
		{"Docker with another subnet", map[string]string{"docker0": "172.17.0.1/16"}, true, nil, outside},
		{"pods on a bridge of another name", map[string]string{"mybr0": "10.5.1.1/24", "docker0": "172.17.0.1/16"}, true, []string{"10-flannel.conflist"}, ""},
		{"another bridge of containers", map[string]string{"nomad": "10.5.1.1/24", "docker0": "172.17.0.1/16"}, true, nil, ""},
		{"both in the subnet", map[string]string{"cni0": "10.5.1.1/24", "docker0": "10.5.1.1/24"}, true, nil, "docker0 has 10.5.1.1/24, an address of this node's subnet 10.5.1.0/24, which the pods use"},
		{"in the subnet of a peer", map[string]string{"br-1234": "10.5.7.1/24"}, false, nil, "br-1234 has 10.5.7.1/24: inside the overlay network, but outside of this node's subnet 10.5.1.0/24"},
		{"in the subnet of nobody", map[string]string{"br-1234": "10.5.8.1/24"}, false, nil, "note: br-1234 has 10.5.8.1/24: inside the overlay network, but outside of this node's subnet 10.5.1.0/24"},
		{"the uplink is a bridge in the network", map[string]string{"br0": "10.5.200.1/24"}, false, nil, ""},
		{"a former address of cni0", map[string]string{"cni0": "10.5.7.1/24"}, false, nil, "cni0 has 10.5.7.1/24, but this node's subnet gives it 10.5.1.1/24"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &network.Status{Network: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}, Uplink: network.UplinkStatus{Name: "br0"}, Peers: []network.Peer{{Subnet: "10.5.7.0/24", How: "tunnel"}}}
			if tt.etcd {
				s.Lease.Expires = &later
			}
			f := &Facts{
				SubnetFile: SubnetFile{Env: &env.Env{Subnet: ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.5.1.1/24")}}},
				Daemon:     Daemon{Status: s}, CNIConfs: tt.confs,
			}
			for name, addr := range tt.bridges {
				f.Host.Links = append(f.Host.Links, kernel.Link{Index: len(f.Host.Links) + 1, Name: name, Kind: "bridge", Up: true})
				f.Host.Addrs = append(f.Host.Addrs, kernel.HostAddr{Addr: netip.MustParsePrefix(addr), Dev: name})
			}
			var got []string
			for _, found := range podBridge.Find(f) {
				if found.Note {
					found.Problem = "note: " + found.Problem
				}
				got = append(got, found.Problem)
			}
			if strings.Join(got, "\n") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
