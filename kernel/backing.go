package kernel

import (
	"context"
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"
)

// Backing is where decisions become actions: the kernel, or a fake in memory.
type Backing struct {
	Links     Links
	Addrs     Table[AddrKey, struct{}]
	FDB       Table[FDBKey, FDBValue]
	Neighbors Table[NeighborKey, MAC]
	// Routes lists routes of the same key one after the other, beginning with
	// the one that wins.
	Routes Table[RouteKey, RouteValue]
	// FindRoutes returns those of the routes that are in the main table,
	// whoever made them; of several with the same key, the one that wins.
	FindRoutes func(keys []RouteKey) (map[RouteKey]RouteValue, error)
	// FDBAges passes the FDB entries of a device with the time since the last
	// packet that used them.
	FDBAges func(dev int, each func(k FDBKey, unused time.Duration)) error
	// Release sends the packets that wait for an address, or drops them, and
	// forgets the address. Nothing depends on its success.
	Release func([]Waiting)
	// Host returns what this host has.
	Host func() (Host, error)
	// Alive reports whether the daemon with this instance runs on the host.
	Alive func(instance string) bool
	// Watch makes the events about these devices reach the observer and, with
	// removals, every removal of a route. Those about routes of ours always do.
	// It is called before these events are relied upon.
	Watch func(s Subscription) error
	// Follow tells an observer what happens until ctx ends.
	Follow func(ctx context.Context, o Observer)
	Close  func() error
}

// Observer is told what happens in the kernel. None of its functions blocks.
type Observer struct {
	// Suspect: anything may have changed. Lost: so many events came that some
	// were lost.
	Suspect, Lost func()
	// Event is about a change, Question about an address that the kernel asks
	// for. Messages are valid during the call only.
	Event, Question func(m rtnl.Message)
}

// Subscription is which events matter beside those about our routes.
type Subscription struct {
	// Devices are indexes, in order.
	Devices []int
	// Removals asks for the removals of all routes.
	Removals bool
}

// Links lists and changes devices.
type Links interface {
	List(each func(Link)) error
	// Get reads one device.
	Get(index int) (Link, error)
	// Add creates a device that is down. A TUN device has the mark at once:
	// one without it is never touched again.
	Add(d Device, alias string) error
	Change(index int, c LinkChange) error
	Delete(index int) error
	// TxChecksum reports whether transmit checksum offload is on.
	TxChecksum(name string) (bool, error)
	TxChecksumOff(name string) error
	// Prepare does once for a device what can fail without harm: it asks for
	// reports of L3 misses and turns off router advertisements.
	Prepare(l Link, d Device) error
}

// Table is one table of the kernel: how to list it and how to write to it.
type Table[K, V comparable] struct {
	Name string
	// List passes the entries that the selection asks for, and may pass more.
	List func(s Selection, each func(K, V)) error
	// Put writes changes and calls fail for each that did not succeed. An
	// entry that does not exist yet is created exclusively.
	Put func(changes []Change[K, V], fail func(i int, err error))
	// Delete deletes entries and calls fail for each that is still there.
	Delete func(entries []Entry[K, V], fail func(i int, err error))
}

// Selection is which entries to list.
type Selection struct {
	Devices []int
	// Unmarked asks for the routes that flannel may have made, too.
	Unmarked bool
	// Others asks for all routes of the families for which it is set.
	Others ipfam.Pair[bool]
}

// Entry is one entry of a table.
type Entry[K, V comparable] struct {
	Key   K
	Value V
}

// Change makes an entry what it should be.
type Change[K, V comparable] struct {
	Key  K
	Want V
	Have V
	// Exists means that the kernel has the key, with the value Have.
	Exists bool
}

// The entries of the kernel's tables, as they are listed and written: devices
// by index, not by name.

// AddrKey is an address of a device.
type AddrKey struct {
	Dev    int
	Prefix netip.Prefix
}

// FDBKey is a MAC behind a device.
type FDBKey struct {
	Dev int
	MAC MAC
}

// FDBValue is where the packets for a MAC go.
type FDBValue struct {
	// Dst is not valid for an entry with a nexthop object.
	Dst netip.Addr
	// Other means that the entry names a port, a VNI or a device that is not
	// the tunnel's, which State cannot express.
	Other bool
}

// NeighborKey is an address on the link of a device.
type NeighborKey struct {
	Dev  int
	Addr netip.Addr
}

// RouteKey is what two routes of the main table differ in. Others may put a
// route of the same key in front of ours.
type RouteKey struct {
	Dst    netip.Prefix
	Metric uint32
	// TOS is that of the packets that an IPv4 route is for; 0 means all. No
	// route of ours has one.
	TOS uint8
}

// RouteValue is where a route leads, and who made it.
type RouteValue struct {
	Via       netip.Addr
	Dev       int
	OnLink    bool
	Blackhole bool
	// Other means that the route is of a kind that State cannot express, for
	// example with several next hops.
	Other    bool
	Protocol uint8
}

// Metric of IPv6 routes that are made without one.
const ipv6Metric = 1024

// peerMetrics is how many metrics the IPv4 routes to peers have, from 1 on. The
// kernel looks for a route's next hop in a hash that the metric is part of but
// the gateway is not: with one metric for all it would compare each with all
// before it. They are the lowest ones, so that few other routes to the same
// destination win against ours.
const peerMetrics = 256

// peerKey returns the key of the route to a peer's subnet, whatever gateway it
// has. For IPv4 its metric is the low byte of the number that the subnet has
// among those of its length, plus one.
func peerKey(dst netip.Prefix) RouteKey {
	if !dst.Addr().Is4() {
		return RouteKey{Dst: dst, Metric: ipv6Metric}
	}
	address := dst.Addr().As4()
	number := binary.BigEndian.Uint32(address[:]) >> (32 - dst.Bits())
	return RouteKey{Dst: dst, Metric: 1 + number%peerMetrics}
}

// blackholeMetric is that of blackhole routes that are made without one. It is
// so high that any other route to the same destination wins: above all the
// bridge's own, which the kernel would otherwise put behind the blackhole.
const blackholeMetric = 1 << 30

// Entry returns what the kernel holds for a route over the device dev.
func (r Route) Entry(dev int) (RouteKey, RouteValue) {
	k := RouteKey{Dst: r.Dst, Metric: uint32(r.Metric)}
	switch {
	case k.Metric != 0:
	case r.Blackhole:
		k.Metric = blackholeMetric
	case r.Via.IsValid() || ipfam.Of(r.Dst.Addr()) == ipfam.V6:
		k = peerKey(r.Dst)
	}
	v := RouteValue{Via: r.Via, Dev: dev, OnLink: r.OnLink, Protocol: RouteProtocol}
	if r.Blackhole {
		v = RouteValue{Blackhole: true, Protocol: RouteProtocol}
	}
	return k, v
}

// Link is a device as the kernel has it.
type Link struct {
	Index int
	Name  string
	Kind  string
	Alias string
	MTU   int
	MAC   MAC
	Up    bool
	// Master is the index of the bridge or bond that the device is part of.
	Master int
	VXLAN  VXLAN
}

// LinkChange is what to change on a device. Zero fields stay as they are.
type LinkChange struct {
	MTU   int
	MAC   MAC
	Alias string
	Up    bool
	// Free takes the device out of its bridge or bond.
	Free bool
}

func isPermanent(state uint16) bool { return state&unix.NUD_PERMANENT != 0 }

// The names of entries in errors.

func (k AddrKey) name() string     { return "address " + k.Prefix.String() }
func (k FDBKey) name() string      { return "fdb entry " + k.MAC.String() }
func (k NeighborKey) name() string { return "neighbor " + k.Addr.String() }
func (k RouteKey) name() string    { return "route " + k.Dst.String() }

// Waiting is an address that the kernel holds packets for. The zero MAC means
// that nobody has it.
type Waiting struct {
	Key NeighborKey
	MAC MAC
}
