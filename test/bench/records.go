package main

import (
	"fmt"
	"net"
	"net/netip"
)

// The large network. Peers have subnets from 10.64.0.0 on, and the node that
// is measured gets its own from below.
const (
	crowdConfig = `{"Network": "10.0.0.0/8", "SubnetLen": 24, "SubnetMin": "10.1.0.0", "SubnetMax": "10.63.255.0",
		"Backend": {"Type": "vxlan"}}`
	firstSubnet = 64 << 8
	maxPeers    = (256 - 64) << 8
)

// peer is a node that exists as a record only.
type peer struct {
	subnet netip.Prefix
	public netip.Addr
	mac    net.HardwareAddr
}

// nthPeer returns a peer whose subnet, public address and MAC nobody else has.
func nthPeer(i int) peer {
	n := firstSubnet + i
	return peer{
		subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24),
		public: netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)}),
		mac:    net.HardwareAddr{0x02, 0x66, 0, byte(i >> 16), byte(i >> 8), byte(i)},
	}
}

// vtep is the address of the peer's device: the first of its subnet.
func (p peer) vtep() netip.Addr { return p.subnet.Addr() }

// name is the last element of the key.
func (p peer) name() string { return fmt.Sprintf("%s-%d", p.subnet.Addr(), p.subnet.Bits()) }

// value is the record, as flannel writes it.
func (p peer) value() string {
	return fmt.Sprintf(`{"PublicIP":"%s","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"%s"}}`,
		p.public, p.mac)
}
