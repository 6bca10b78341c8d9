// Package kernel makes the network state of this host what it should be, and
// reports when somebody else changes it.
package kernel

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"

	"flannel/internal/ipfam"
)

// RouteProtocol marks the routes that this software makes (rtm_protocol,
// rtnetlink(7)). The number is not assigned to any other routing daemon in
// iproute2's rt_protos.
const RouteProtocol = 70

// State is what the kernel should hold for one overlay on this host. The
// order of slices has no meaning; no two entries have the same key.
type State struct {
	Devices   []Device
	FDB       []FDBEntry
	Neighbors []Neighbor
	Routes    []Route
	// OnDemandPeers are the peers whose entries need not be in the kernel until
	// it asks for an address of theirs.
	OnDemandPeers []OnDemandPeer
	// CatchAllRoutes are those of Routes that lead to the device of on-demand
	// peers, so that the kernel asks.
	CatchAllRoutes []CatchAllRoute
}

// MAC is an Ethernet address (EUI-48) that can be compared and used as a key.
// The zero MAC means none.
type MAC [6]byte

// ParseMAC reads an address in any of the notations of net.ParseMAC. It
// accepts only six bytes.
func ParseMAC(s string) (MAC, error) {
	if m, ok := parseUsualMAC(s); ok {
		return m, nil
	}
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != len(MAC{}) {
		return MAC{}, fmt.Errorf("%q is not an Ethernet address", s)
	}
	return MAC(hw), nil
}

// parseUsualMAC reads bytes in hex with colons, without memory of its own: it is
// done for each peer in each pass.
func parseUsualMAC(s string) (m MAC, ok bool) {
	if len(s) != len("00:00:00:00:00:00") {
		return m, false
	}
	for i := range m {
		at := s[3*i:]
		if _, err := hex.Decode(m[i:i+1], []byte(at[:2])); err != nil || i < len(m)-1 && at[2] != ':' {
			return m, false
		}
	}
	return m, true
}

// String returns the address in lower case with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// IsZero reports whether the address is all zeros.
func (m MAC) IsZero() bool { return m == MAC{} }

// IsUnicast reports whether a single host can have this address: it is not
// zero and the group bit is clear (IEEE 802, I/G bit).
func (m MAC) IsUnicast() bool { return !m.IsZero() && m[0]&1 == 0 }

// MarshalText makes JSON and slog print the address and not six numbers.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// Device is a network interface of ours. Fields of State refer to it by name.
type Device struct {
	Name  string
	MTU   int
	MAC   MAC
	Addrs []netip.Prefix
	// TxChecksumOff turns off transmit checksum offload.
	TxChecksumOff bool
	// VXLAN is set for a vxlan device.
	VXLAN *VXLAN
	// TUN means that packets go to user space: the device is made persistent,
	// without packet information and with virtio-net headers, and whoever
	// moves the packets attaches to it.
	TUN bool
}

// VXLAN holds what cannot be changed on a vxlan device once it exists; a
// device that differs in one of these is replaced.
type VXLAN struct {
	VNI int
	// Port is the UDP port; 0 means the kernel's default, 8472.
	Port int
	// Local is the source address of the tunnel.
	Local netip.Addr
	// Uplink is the interface index the tunnel is bound to.
	Uplink   int
	Learning bool
	GBP      bool
}

// FDBEntry is the host on which a MAC behind a vxlan device lives.
type FDBEntry struct {
	Dev string
	MAC MAC
	Dst netip.Addr
}

// Neighbor is a permanent ARP or NDP entry.
type Neighbor struct {
	Dev  string
	Addr netip.Addr
	MAC  MAC
}

// Route is a route in the main table.
type Route struct {
	Dst netip.Prefix
	// Via is the gateway; invalid for a route straight to the device.
	Via netip.Addr
	Dev string
	// OnLink means that the gateway is reachable over Dev although it is in the
	// network of no address of Dev.
	OnLink bool
	// Metric is the kernel's priority of the route; 0 is the kernel's default
	// (for IPv6: 1024), for an IPv4 route with a gateway one from 1 to 256 that
	// follows from Dst, for a blackhole one that every other route to Dst wins
	// against.
	Metric int
	// Blackhole drops what matches; Via and Dev are then empty.
	Blackhole bool
}

// OnDemandPeer is what to install when the kernel asks for an address in Subnet
// on the device of Route.
type OnDemandPeer struct {
	Subnet   netip.Prefix
	Route    Route
	Neighbor Neighbor
	FDB      FDBEntry
}

// CatchAllRoute is a route that leads the addresses of Network to the device
// Dev although it has no entry for most of them. On-demand peers are installed
// for them when the kernel asks; nobody has an address that is neither in the
// subnet of one of these nor in Own, this node's subnet.
type CatchAllRoute struct {
	Dev     string
	Network netip.Prefix
	Own     netip.Prefix
}

// Scope is what on the host is ours beyond what carries our mark.
type Scope struct {
	// Networks are the networks inside which routes with our protocol number
	// are ours, the previous one of subnet.env included.
	Networks []netip.Prefix
	// Instance names this daemon among others on the same host; it is written
	// into the alias of our devices. The daemon holds its InstanceLock: any daemon
	// that needs them may take over the devices of an instance whose lock is
	// free.
	Instance string
	// Known means that an earlier run of this software is known on this host:
	// then no unmarked route is adopted.
	Known bool
	// Adopt selects which unmarked routes are adopted on the first start after
	// flannel, beside those over our devices.
	Adopt []Adoption
}

// Adoption describes routes that flannel makes without a mark: protocol boot,
// inside Network, with prefix length Bits, via a gateway on interface Dev.
type Adoption struct {
	Network netip.Prefix
	Bits    int
	Dev     string
}

// Stats counts what a pass did, by table.
type Stats struct {
	Put     map[string]int
	Deleted map[string]int
	// Drift counts entries that somebody else had changed or removed and that
	// the pass repaired. What was on a device that is gone counts as that
	// device alone.
	Drift map[string]int
	// Held counts entries that are stale but were not deleted because
	// deletions are held.
	Held int
	// Failed holds the errors of entries by the destination of the route that
	// they serve, for the status of single peers. It is nil when nothing
	// failed.
	Failed map[netip.Prefix]error
	// DeviceErr is what is wrong with this node's devices and addresses.
	DeviceErr error
	// Broken are the families that DeviceErr is about.
	Broken ipfam.Pair[bool]
	// Listed means that the pass read the tables of the kernel.
	Listed bool
}

// Counters count, since the start, what happened between passes.
type Counters struct {
	// MissesAnswered and MissesUnknown count the L3 misses with and without a
	// peer for the address.
	MissesAnswered, MissesUnknown uint64
	// Overruns counts how often events were lost because they came too fast.
	Overruns uint64
	// Tampering counts events that showed somebody else's change of ours.
	Tampering uint64
}

// Names of the tables, as used in Stats, logs and metrics.
const (
	TableDevices   = "devices"
	TableAddresses = "addresses"
	TableFDB       = "fdb"
	TableNeighbors = "neighbors"
	TableRoutes    = "routes"
)

// Changed returns the number of writes the pass made.
func (s Stats) Changed() int {
	n := 0
	for _, c := range s.Put {
		n += c
	}
	for _, c := range s.Deleted {
		n += c
	}
	return n
}
