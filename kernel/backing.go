package kernel

import (
	"net/netip"
	"time"

	"flannel/internal/ipfam"

	"golang.org/x/sys/unix"
)

// backing is where decisions become actions: the kernel, or a fake in memory.
type backing struct {
	links     linkTable
	addrs     table[addrKey, struct{}]
	fdb       table[fdbKey, fdbValue]
	neighbors table[neighKey, MAC]
	routes    table[routeKey, routeValue]
	// alive reports whether the daemon with this instance runs on the host.
	alive func(instance string) bool
	// fdbAges passes the FDB entries of a device with the time since the last
	// packet that used them.
	fdbAges func(dev int, each func(k fdbKey, unused time.Duration)) error
	// release lets the packets go that wait for an address, or drops them, and
	// forgets the address. Nothing depends on its success.
	release func([]waiting)
	// host returns what this host has.
	host func() (Host, error)
	// findRoutes returns those of the routes that are in the main table,
	// whoever made them.
	findRoutes func(keys []routeKey) (map[routeKey]routeValue, error)
}

// linkTable lists and changes devices.
type linkTable interface {
	List(each func(link)) error
	// Add creates a device that is down. A TUN device has the mark at once:
	// one without it is never touched again.
	Add(d Device, alias string) error
	Change(index int, c linkChange) error
	Delete(index int) error
	// TxChecksum reports whether transmit checksum offload is on.
	TxChecksum(name string) (bool, error)
	TxChecksumOff(name string) error
	// Prepare does once for a device what can fail without harm: it asks for
	// reports of L3 misses and turns off router advertisements.
	Prepare(l link, d Device) error
	// Watch makes events of the watched devices matter. It is called before
	// these events are relied upon.
	Watch() error
}

// table is one table of the kernel: how to list it and how to write to it.
type table[K, V comparable] struct {
	name string
	// list passes the entries that the selection asks for, and may pass more.
	list func(s selection, each func(K, V)) error
	// put writes changes and calls fail for each that did not succeed. An
	// entry that does not exist yet is created exclusively.
	put func(changes []change[K, V], fail func(i int, err error))
	// del deletes entries and calls fail for each that is still there.
	del func(entries []entry[K, V], fail func(i int, err error))
}

// selection says which entries to list.
type selection struct {
	devices []int
	// unmarked asks for the routes that flannel may have made, too.
	unmarked bool
}

type entry[K, V comparable] struct {
	key   K
	value V
}

// change makes an entry what it should be.
type change[K, V comparable] struct {
	key  K
	want V
	have V
	// exists says that the kernel has the key, with the value have.
	exists bool
}

// The entries of the kernel's tables, as both edges list and write them:
// devices by index, not by name.

type addrKey struct {
	dev    int
	prefix netip.Prefix
}

type fdbKey struct {
	dev int
	mac MAC
}

// fdbValue is where the packets for a MAC go.
type fdbValue struct {
	// dst is not valid for an entry with a nexthop object.
	dst netip.Addr
	// other says that the entry names a port, a VNI or a device that is not
	// the tunnel's own, which State cannot express.
	other bool
}

type neighKey struct {
	dev  int
	addr netip.Addr
}

type routeKey struct {
	dst    netip.Prefix
	metric int
}

type routeValue struct {
	via       netip.Addr
	dev       int
	onLink    bool
	blackhole bool
	// other says that the route is of a kind that State cannot express, for
	// example with several next hops.
	other    bool
	protocol uint8
}

// Metric of IPv6 routes that are made without one.
const ipv6Metric = 1024

// blackholeMetric is that of blackhole routes that are made without one. It is
// so high that any other route to the same destination wins: above all the
// bridge's own, which the kernel would otherwise put behind the blackhole.
const blackholeMetric = 1 << 30

// entry returns what the kernel holds for a route over the device dev.
func (r Route) entry(dev int) (routeKey, routeValue) {
	k := routeKey{dst: r.Dst, metric: r.Metric}
	switch {
	case k.metric != 0:
	case r.Blackhole:
		k.metric = blackholeMetric
	case ipfam.Of(r.Dst.Addr()) == ipfam.V6:
		k.metric = ipv6Metric
	}
	v := routeValue{via: r.Via, dev: dev, onLink: r.OnLink, protocol: RouteProtocol}
	if r.Blackhole {
		v = routeValue{blackhole: true, protocol: RouteProtocol}
	}
	return k, v
}

// link is a device as the kernel has it.
type link struct {
	index int
	name  string
	kind  string
	alias string
	mtu   int
	mac   MAC
	up    bool
	// master is the index of the bridge or bond that the device is part of.
	master int
	vxlan  VXLAN
}

// linkChange says what to change on a device. Zero fields stay as they are.
type linkChange struct {
	mtu   int
	mac   MAC
	alias string
	up    bool
	// free takes the device out of its bridge or bond.
	free bool
}

func isPermanent(state uint16) bool { return state&unix.NUD_PERMANENT != 0 }

// The names of entries in errors.

func (k addrKey) name() string  { return "address " + k.prefix.String() }
func (k fdbKey) name() string   { return "fdb entry " + k.mac.String() }
func (k neighKey) name() string { return "neighbour " + k.addr.String() }
func (k routeKey) name() string { return "route " + k.dst.String() }
