package kernel_test

import (
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"flannel/kernel"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, got, path string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant as in %s:\n%s", got, path, want)
	}
}

var (
	network4 = netip.MustParsePrefix("10.5.0.0/16")
	network6 = netip.MustParsePrefix("fd00:5::/48")
	scope    = kernel.Scope{Networks: []netip.Prefix{network4, network6}, Instance: "one"}
)

func mac(n int) kernel.MAC { return kernel.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

func subnet4(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5 + byte(n>>8), byte(n), 0}), 24)
}

func subnet6(n int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("fd00:5:0:%x::/64", n))
}

func public4(n int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2 + byte(n>>8), byte(n)}) }

func public6(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", n)) }

func host(p netip.Prefix) netip.Prefix { return netip.PrefixFrom(p.Addr(), p.Addr().BitLen()) }

// dual is a node with number 1 and peers in both families.
func dual(uplink int, peers ...int) kernel.State {
	s := kernel.State{Devices: []kernel.Device{
		{
			Name: "flannel.1", MTU: 1450, MAC: mac(1), Addrs: []netip.Prefix{host(subnet4(1))},
			VXLAN: &kernel.VXLAN{VNI: 1, Local: public4(1), Uplink: uplink},
		},
		{
			Name: "flannel-v6.1", MTU: 1430, MAC: mac(1), Addrs: []netip.Prefix{host(subnet6(1))},
			VXLAN: &kernel.VXLAN{VNI: 1, Local: public6(1), Uplink: uplink},
		},
	}}
	for _, n := range peers {
		addPeer(&s, "flannel.1", subnet4(n), public4(n), mac(n))
		addPeer(&s, "flannel-v6.1", subnet6(n), public6(n), mac(n))
	}
	return s
}

// single is a node with number 1 and peers, IPv4 only.
func single(uplink int, peers ...int) kernel.State {
	s := dual(uplink)
	s.Devices = s.Devices[:1]
	for _, n := range peers {
		addPeer(&s, "flannel.1", subnet4(n), public4(n), mac(n))
	}
	return s
}

func addPeer(s *kernel.State, dev string, subnet netip.Prefix, public netip.Addr, m kernel.MAC) {
	s.FDB = append(s.FDB, kernel.FDBEntry{Dev: dev, MAC: m, Dst: public})
	s.Neighbors = append(s.Neighbors, kernel.Neighbor{Dev: dev, Addr: subnet.Addr(), MAC: m})
	s.Routes = append(s.Routes, kernel.Route{Dst: subnet, Via: subnet.Addr(), Dev: dev, OnLink: true})
}

func TestStateReadsLikeTheIPTool(t *testing.T) {
	s := dual(2, 3, 2)
	s.Devices[0].TxChecksumOff = true
	s.Devices[0].VXLAN.Port = 4789
	s.Devices[1].VXLAN.GBP = true
	s.Devices[1].VXLAN.Learning = true
	s.Routes = append(s.Routes,
		kernel.Route{Dst: subnet4(1), Blackhole: true},
		kernel.Route{Dst: subnet4(9), Via: public4(9), Dev: "eth0"},
		kernel.Route{Dst: network4, Dev: "flannel.1", Metric: 100},
	)
	s.OnDemandPeers = []kernel.OnDemandPeer{{
		Subnet:   subnet4(4),
		Route:    kernel.Route{Dst: subnet4(4), Via: subnet4(4).Addr(), Dev: "flannel.1", OnLink: true},
		Neighbor: kernel.Neighbor{Dev: "flannel.1", Addr: subnet4(4).Addr(), MAC: mac(4)},
		FDB:      kernel.FDBEntry{Dev: "flannel.1", MAC: mac(4), Dst: public4(4)},
	}}
	golden(t, s.String(), "testdata/state.txt")
}

// FuzzParseMAC compares the short way with the general parser.
func FuzzParseMAC(f *testing.F) {
	for _, s := range []string{
		"02:00:00:00:ab:CD", "02-00-00-00-00-01", "0200.0000.0001", "02:00:00:00:00:0", "02:00:00:00:00:0g", "02:00:00:00:00:001",
		"02:00:00:00:00-01", "02:00:00:00:00:00:00:01", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := net.ParseMAC(s)
		ok := err == nil && len(want) == len(kernel.MAC{})
		if got, err := kernel.ParseMAC(s); (err == nil) != ok || ok && got != kernel.MAC(want) {
			t.Errorf("%q: got %v, %v; want %v", s, got, err, want)
		}
	})
}
