package kernel

import (
	"net/netip"

	"flannel/internal/ipfam"

	"golang.org/x/sys/unix"
)

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
