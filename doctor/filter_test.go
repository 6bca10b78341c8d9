package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"flannel/backend"
	"flannel/backend/udp"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/kernel/look"
	"flannel/network"
	"flannel/subnet/env"
)

// udpNode are the facts of a node with the backend udp, whose port only the daemon
// knows.
func udpNode(port int) *Facts {
	f := &Facts{Backends: backend.Table{udp.Type}}
	f.SubnetFile.Env = &env.Env{Subnet: ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.5.1.1/24")}}
	f.Host.Links = look.Links{{Index: 1, Name: "eth0", Up: true}, {Index: 2, Name: "flannel0", Kind: kernel.KindTUN, Up: true}, {Index: 3, Name: "cali7"}}
	f.Daemon.Status = &network.Status{
		Network: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}, Port: port, Uplink: network.UplinkStatus{Name: "eth0"},
		Devices: []network.DeviceStatus{{Name: "flannel0"}},
		Peers:   []network.Peer{{Subnet: "10.5.2.0/24", Via: "192.0.2.2", How: string(backend.Tunnel)}},
	}
	return f
}

// packets returns what the filters are read for.
func (f *Facts) packetTexts() []string {
	var out []string
	for _, p := range f.Packets() {
		out = append(out, fmt.Sprintf("%s: %s > %s, port %d", p.What, p.In.Name, p.Out.Name, p.Port))
	}
	return out
}

func TestTheFiltersAreReadForThePortOfTheConfiguration(t *testing.T) {
	f := udpNode(9285)
	want := []string{
		"packets of pods that leave by flannel0: cni0 > flannel0, port 0", "packets to pods that come in by flannel0: flannel0 > cni0, port 0",
		"the packets of flannel0 on UDP port 9285: eth0 > , port 9285", "the packets of flannel0 on UDP port 9285:  > eth0, port 9285",
	}
	if got := f.packetTexts(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := udpNode(0).packetTexts(); !slices.Equal(got, want[:2]) {
		t.Errorf("without the port: got %q, want %q", got, want[:2])
	}
}

// Other plugins have no bridge, but a route to each pod.
func TestTheFiltersAreReadForTheDevicesOfPods(t *testing.T) {
	f := udpNode(0)
	f.Host.Routes = []look.Route{{Dst: netip.MustParsePrefix("10.5.1.7/32"), Dev: "cali7"}, {Dst: netip.MustParsePrefix("10.5.0.0/16"), Dev: "flannel0"}}
	want := []string{"packets of pods that leave by flannel0: cali7 > flannel0, port 0", "packets to pods that come in by flannel0: flannel0 > cali7, port 0"}
	if got := f.packetTexts(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTheOverheadIsThatOfTheBackend(t *testing.T) {
	f := udpNode(0)
	if got := f.overhead(f.Host.Links[1]); got != udp.Type.Traits.Overhead[ipfam.V4] {
		t.Errorf("got %d", got)
	}
	f.Daemon.Status.Network = append(f.Daemon.Status.Network, netip.MustParsePrefix("fc00::/48"))
	if got := f.overhead(f.Host.Links[1]); got != udp.Type.Traits.Overhead[ipfam.V6] {
		t.Errorf("both families: got %d", got)
	}
}
