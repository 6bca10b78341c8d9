// Package backend defines what turns leases into kernel state.
package backend

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"

	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/subnet"
)

// Backend is one way to carry pod traffic between nodes, as configured. Its
// methods are pure: they depend on their arguments and on the configuration only,
// and do no I/O.
type Backend interface {
	// Attrs is what other nodes need to reach this node over this uplink.
	Attrs(up Uplink) subnet.Attrs
	// MTU is what pods may send over this uplink, in bytes.
	MTU(up Uplink) int
	// Plan returns what the kernel of this node should hold, and for each peer
	// and family how it is reached. Peers that cannot be used are left out,
	// and their status has the reason; an error means that there is no plan
	// for this node at all. The caller may change peers afterwards.
	Plan(own subnet.Lease, peers []subnet.Lease, h Host) (kernel.State, []PeerStatus, error)
}

// Runner is implemented by a backend that moves packets itself.
type Runner interface {
	// Run moves packets until ctx ends. It calls changed, which never blocks,
	// when Use would return something else than before.
	Run(ctx context.Context, changed func()) error
	// Use is called after each pass with what the plan was made from; the
	// kernel then holds the plan. It does not block. The error is what keeps
	// packets from being moved.
	Use(own subnet.Lease, peers []subnet.Lease, h Host) error
}

// Env is what a backend is built from, beside its configuration.
type Env struct {
	Log *slog.Logger
	// Families that are on.
	Families ipfam.Pair[bool]
	// Network is the whole overlay network in each family that is on.
	Network ipfam.Pair[netip.Prefix]
	// Previous is what an earlier run of this node published; zero if there
	// was none.
	Previous subnet.Attrs
	// DeviceMAC returns the MAC of an existing device of this name, or the
	// zero MAC. It is called only while the backend is built.
	DeviceMAC func(name string) kernel.MAC
	// TUNName returns the name of the TUN device that this daemon has made
	// before, else the prefix with the first number that is free. It is called
	// only while the backend is built.
	TUNName func(prefix string) string
	// Counter returns the counter of the packets that are counted for this
	// reason. It is called once for each, while the backend is built.
	Counter func(reason string) *atomic.Uint64
}

// Attrs is what a node without backend data publishes: its public address in
// each family that is on.
func (e Env) Attrs(backendType string, up Uplink) subnet.Attrs {
	a := subnet.Attrs{BackendType: backendType}
	for f, on := range e.Families.Each() {
		if on {
			a.PublicIP[f] = up.Public[f]
		}
	}
	return a
}

// Uplink is the interface and the addresses that carry the overlay's traffic.
type Uplink struct {
	Name  string
	Index int
	// MTU of the interface in bytes.
	MTU int
	// Why is how the interface was found, for people: the flag, or the default
	// route.
	Why string
	// Addr is the interface's address that is used as the source, in each
	// family that is on.
	Addr ipfam.Pair[netip.Addr]
	// Public is the address that other nodes send to.
	Public ipfam.Pair[netip.Addr]
}

// Host is what a plan may know about the host.
type Host struct {
	Uplink Uplink
	// OnLinkRoutes is empty unless the backend needs it.
	OnLinkRoutes OnLinkRoutes
}

// OnLinkRoutes are the host's routes that decide whether an address is on the same
// link as the uplink: its on-link prefixes, and the prefixes that lead
// elsewhere.
type OnLinkRoutes []OnLinkRoute

// OnLinkRoute is one prefix of the main routing table.
type OnLinkRoute struct {
	Prefix netip.Prefix
	// Direct is whether the prefix is on the uplink's own link.
	Direct bool
}

// Direct reports whether the most specific prefix that holds a is on the
// uplink's link.
func (routes OnLinkRoutes) Direct(a netip.Addr) bool {
	best := OnLinkRoute{}
	for _, r := range routes {
		if r.Prefix.Contains(a) && (!best.Prefix.IsValid() || r.Prefix.Bits() > best.Prefix.Bits()) {
			best = r
		}
	}
	return best.Direct
}

// How a peer is reached in one family.
type How string

// The ways in which a peer is reached, or not.
const (
	Tunnel      How = "tunnel"
	Direct      How = "direct"
	Unreachable How = "unreachable"
	LeftOut     How = "left out"
)

// PeerStatus is how one peer is reached in one family, and why so.
type PeerStatus struct {
	// Name of the peer's lease.
	Name   string
	Family ipfam.Family
	Subnet netip.Prefix
	// Via is the peer's address that its traffic is sent to.
	Via netip.Addr
	How How
	// Why is one line for people.
	Why   string
	Probe Probe
	// Carried is how the packets to and from the peer are made.
	Carried Carried
}

// CheckPeer returns why a backend of this type cannot use a peer in one family,
// whatever else its record holds.
func CheckPeer(f ipfam.Family, l *subnet.Lease, backendType string) error {
	switch {
	case l.Attrs.BackendType != backendType:
		return fmt.Errorf("its backend is %q, this node's is %q", l.Attrs.BackendType, backendType)
	case !l.Attrs.PublicIP[f].IsValid():
		return fmt.Errorf("no public %s address", f)
	}
	return nil
}
