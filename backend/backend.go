// Package backend says what turns leases into kernel state.
package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"

	"flannel/internal/ipfam"
	"flannel/internal/options"
	"flannel/kernel"
	"flannel/subnet"
)

// Backend is one way to carry pod traffic between nodes. Its methods are pure:
// they depend on their arguments and on the configuration only, and do no I/O.
type Backend interface {
	// Attrs is what other nodes need to reach this node over this uplink.
	Attrs(up Uplink) subnet.Attrs
	// MTU is what pods may send over this uplink, in bytes.
	MTU(up Uplink) int
	// Plan says what the kernel of this node should hold, and for each peer
	// and family how it is reached. Peers that cannot be used are left out
	// and have a status that says why; an error means that there is no plan
	// for this node at all. peers is the caller's again afterwards.
	Plan(own subnet.Lease, peers []subnet.Lease, v View) (kernel.State, []PeerStatus, error)
}

// Runner is implemented by a backend that moves packets itself.
type Runner interface {
	// Run moves packets until ctx ends. It calls changed, which never blocks,
	// when Use would say something else than before.
	Run(ctx context.Context, changed func()) error
	// Use is called after each pass with what the plan was made from; the
	// kernel then holds the plan. It does not block. The error says what keeps
	// packets from being moved.
	Use(own subnet.Lease, peers []subnet.Lease, v View) error
}

// Counter is implemented by a backend that counts packets.
type Counter interface {
	// Counters returns a counter for each reason to note a packet. They may be
	// read at any time.
	Counters() map[string]*atomic.Uint64
}

// LinkUser is implemented by a backend whose plan may depend on View.Links.
type LinkUser interface {
	// UsesLinks reports whether it does so with this configuration.
	UsesLinks() bool
}

// UplinkChecker is implemented by a backend that not every uplink suits.
type UplinkChecker interface {
	// CheckUplink says what is wrong with the uplink. An uplink that is wrong
	// at the start ends the daemon; later the plan is an error.
	CheckUplink(up Uplink) error
}

// Loner is implemented by a backend that may do without peers.
type Loner interface {
	// IgnoresPeers reports whether the plan does not depend on peers. Then
	// the records of other nodes are not watched.
	IgnoresPeers() bool
}

// Env is what a backend is built from.
type Env struct {
	Log *slog.Logger
	// Families that are on.
	Families ipfam.Pair[bool]
	// Network is the whole overlay network in each family that is on.
	Network ipfam.Pair[netip.Prefix]
	// Options is the Backend object of the network configuration.
	Options json.RawMessage
	// Previous is what an earlier run of this node published; zero when there
	// was none.
	Previous subnet.Attrs
	// DeviceMAC returns the MAC of an existing device of this name, or the
	// zero MAC. It is asked only while the backend is built.
	DeviceMAC func(name string) kernel.MAC
	// TUNName returns the name of the TUN device that this daemon has made
	// before, else the prefix with the first number that is free. It is asked
	// only while the backend is built.
	TUNName func(prefix string) string
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

// OnlyType checks the options of a backend that has no keys of its own, and says
// which ones have no effect.
func (e Env) OnlyType() error {
	warnings, err := options.OnlyType(e.Options)
	if err != nil {
		return fmt.Errorf("Backend: %w", err)
	}
	for _, w := range warnings {
		e.Log.Warn("backend configuration", "problem", w)
	}
	return nil
}

// Factory builds a backend. An error names the key and what is allowed.
type Factory func(env Env) (Backend, error)

// Uplink is the interface and the addresses that carry the overlay's traffic.
type Uplink struct {
	Name  string
	Index int
	// MTU of the interface in bytes.
	MTU int
	// Addr is the interface's address that is used as the source, in each
	// family that is on.
	Addr ipfam.Pair[netip.Addr]
	// Public is the address that other nodes send to.
	Public ipfam.Pair[netip.Addr]
}

// View is what a plan may know about the host.
type View struct {
	Uplink Uplink
	Links  Links
}

// Links are the host's routes that decide whether an address is on the same
// link as the uplink: its on-link prefixes, and the prefixes that lead
// elsewhere.
type Links []Link

// Link is one prefix of the main routing table.
type Link struct {
	Prefix netip.Prefix
	// Direct says that the prefix is on the uplink's own link.
	Direct bool
}

// Direct reports whether the most specific prefix that holds a is on the
// uplink's link.
func (l Links) Direct(a netip.Addr) bool {
	best := Link{}
	for _, link := range l {
		if link.Prefix.Contains(a) && (!best.Prefix.IsValid() || link.Prefix.Bits() > best.Prefix.Bits()) {
			best = link
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

// PeerStatus says how one peer is reached in one family, and why so.
type PeerStatus struct {
	// Name of the peer's lease.
	Name   string
	Family ipfam.Family
	Subnet netip.Prefix
	// Via is the peer's address that its traffic is sent to.
	Via netip.Addr
	How How
	// Why is one line for people.
	Why string
}

// Unusable says why a backend of this type cannot use a peer in one family,
// whatever else the peer says, or nothing.
func Unusable(f ipfam.Family, l *subnet.Lease, backendType string) string {
	switch {
	case l.Attrs.BackendType != backendType:
		return fmt.Sprintf("its backend is %q, this node's is %q", l.Attrs.BackendType, backendType)
	case !l.Attrs.PublicIP[f].IsValid():
		return fmt.Sprintf("no public %s address", f)
	}
	return ""
}
