package main

import (
	"fmt"
	"net"
	"net/netip"
)

// The large network. Peers have subnets from 10.60.0.0 on, and the node that
// is measured gets its own from below.
const (
	crowdRange  = `"Network": "10.0.0.0/8", "SubnetLen": 24, "SubnetMin": "10.1.0.0", "SubnetMax": "10.59.255.0"`
	crowdConfig = `{` + crowdRange + `, "Backend": {"Type": "vxlan"}}`
	// dualRange is the same in both families.
	dualRange = crowdRange + `, "EnableIPv6": true, "IPv6Network": "fd00:10::/48", "IPv6SubnetMin": "fd00:10:0:100::", "IPv6SubnetMax": "fd00:10:0:3b00::"`

	firstSubnet = 60 << 8
	maxPeers    = (256 - 60) << 8
)

// peer is a node that exists as a record only.
type peer struct {
	subnet netip.Prefix
	public netip.Addr
	mac    net.HardwareAddr
	// The second family, for networks that have it.
	subnet6 netip.Prefix
	public6 netip.Addr
}

// nthPeer returns a peer whose subnet, public address and MAC nobody else has.
func nthPeer(i int) peer {
	n := firstSubnet + i
	return peer{
		subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24),
		public: netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)}),
		mac:    net.HardwareAddr{0x02, 0x66, 0, byte(i >> 16), byte(i >> 8), byte(i)},

		subnet6: netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x10, 6: byte(n >> 8), 7: byte(n)}), 64),
		public6: netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x64, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}),
	}
}

// vtep is the address of the peer's device: the first of its subnet.
func (p peer) vtep() netip.Addr { return p.subnet.Addr() }

// name is the last element of the key.
func (p peer) name() string { return fmt.Sprintf("%s-%d", p.subnet.Addr(), p.subnet.Bits()) }

// dualName and dualValue are those of a vxlan node in both families.
func (p peer) dualName() string {
	return fmt.Sprintf("%s&%s-%d", p.name(), p.subnet6.Addr(), p.subnet6.Bits())
}

func (p peer) dualValue() string {
	return fmt.Sprintf(`{"PublicIP":"%s","PublicIPv6":"%s","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"%s"},"BackendV6Data":{"VNI":1,"VtepMAC":"%s"}}`,
		p.public, p.public6, p.mac, p.mac)
}

// value is the record, as flannel writes it.
func (p peer) value(backendType string) string {
	if backendType != "vxlan" {
		return fmt.Sprintf(`{"PublicIP":"%s","PublicIPv6":null,"BackendType":"%s"}`, p.public, backendType)
	}
	return fmt.Sprintf(`{"PublicIP":"%s","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"%s"}}`,
		p.public, p.mac)
}
