// Package network runs one overlay on this node: one loop turns the latest
// leases into kernel state and keeps it so.
package network

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/backend"
	"flannel/internal/health"
	"flannel/internal/ipfam"
	"flannel/internal/loop"
	"flannel/internal/metrics"
	"flannel/internal/statedir"
	"flannel/kernel"
	"flannel/subnet"
	"flannel/subnet/env"
)

// ResyncPeriod is how often the kernel is dumped and compared although no
// event asks for it.
const ResyncPeriod = 120 * time.Second

// Kernel is what the loop needs of the kernel.
type Kernel interface {
	// Apply makes the kernel hold what is wanted. With hold, nothing stale is
	// deleted.
	Apply(ctx context.Context, want kernel.State, hold bool) (kernel.Stats, error)
	// Invalidate makes the next Apply compare with a dump of the kernel.
	Invalidate()
	// Destinations returns the destinations of our routes in the kernel.
	Destinations(ctx context.Context) ([]netip.Prefix, error)
	// Host reads the addresses and default gateways of this host.
	Host(ctx context.Context) (kernel.Host, error)
	// Run reports tampering until ctx ends; changed never blocks.
	Run(ctx context.Context, changed func()) error
}

// Uplink is what the loop needs to know about the way out of this host.
type Uplink interface {
	// Wait blocks until there is an uplink.
	Wait(ctx context.Context) (backend.Host, error)
	// Current returns the uplink in use; an error means that it is gone and
	// the Host is the last good one.
	Current() (backend.Host, error)
	// Run follows the uplink until ctx ends; changed never blocks.
	Run(ctx context.Context, changed func()) error
}

// checks are the parts of this node's health that the loop knows of.
type checks struct {
	config, uplink, lease, device, firstPass, subnetFile *health.Check
	// peers never makes the node unready.
	peers *health.Check
	// passes is the loop itself.
	passes *health.Loop
}

func newChecks(r *health.Registry) checks {
	return checks{
		config:     r.Require("network configuration", "waiting for it"),
		uplink:     r.Require("uplink", "waiting for an interface and its address"),
		lease:      r.Require("lease", "waiting for a subnet"),
		device:     r.Require("device", "not made yet"),
		firstPass:  r.Require("first pass", "waiting for the leases of the other nodes"),
		subnetFile: r.Require("subnet file", "not written yet"),
		peers:      r.Note("peers", ""),
		passes:     r.AddLoop("passes"),
	}
}

// Options is what a Network is built from.
type Options struct {
	Log     *slog.Logger
	Manager subnet.Manager
	// NewUplink and NewKernel are called once, when the configuration is
	// known.
	NewUplink func(families ipfam.Pair[bool], overrides ipfam.Pair[netip.Addr], onLinkRoutes bool) (Uplink, error)
	NewKernel func(kernel.Scope) (Kernel, error)
	// DeviceMAC returns the MAC of an existing device, or the zero MAC.
	DeviceMAC func(name string) kernel.MAC
	// TUNName is that of backend.Env.
	TUNName func(prefix string) string
	// ReaddressBridge gives a bridge that has no ports the present subnet's
	// address. With ports it returns the addresses of an earlier subnet.
	ReaddressBridge func(name string, e env.Env) (former []netip.Prefix, err error)
	// NewFilter is called once, when the uplink is known; nil means that
	// nothing keeps the packet filter.
	NewFilter func(FilterEnv) Filter
	Backends  backend.Table
	Health    *health.Registry
	Metrics   *metrics.Metrics
	// SubnetFile is the path of subnet.env.
	SubnetFile string
	// SubnetFileWritten is called in a pass after subnet.env is there, and again
	// in later ones until it returned nil. It may be nil.
	SubnetFileWritten func() error
	IPMasq            bool
	// Passed is called after each pass with how the peers are reached, which
	// nobody changes afterwards; Probed returns what probes have shown of them,
	// in their order. Both must not block and may be nil.
	Passed func([]backend.PeerStatus)
	Probed func([]backend.PeerStatus) []backend.Probed
	// State is what a later start has to know; nil keeps nothing.
	State *statedir.Dir
	// BlackholeRoute asks for a blackhole route for this node's subnet.
	BlackholeRoute bool
}

// Network is one overlay on this node.
type Network struct {
	Options
	checks checks

	config *subnet.Config
	file   subnetFile
	// needs are those of the backend.
	needs backend.Needs
	// port is the UDP port of the backend, 0 if it has none.
	port    int
	backend backend.Backend
	uplink  Uplink
	kernel  Kernel
	filter  Filter // may be nil

	// What the loop works with: the latest of each. kick asks for a pass.
	snapshot atomic.Pointer[subnet.Snapshot]
	own      atomic.Pointer[subnet.Lease]
	last     atomic.Pointer[result]
	kick     loop.Signal
	// attrs makes the keeper of the lease check the uplink again.
	attrs loop.Signal
}

// New returns a Network that does nothing until Run.
func New(o Options) *Network {
	return &Network{Options: o, checks: newChecks(o.Health), kick: loop.NewSignal(), attrs: loop.NewSignal()}
}

// Run brings the overlay up and keeps it so until ctx ends. It waits for what
// is not there yet; it ends earlier only for what waiting does not help.
func (n *Network) Run(ctx context.Context) error {
	if err := n.prepare(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.uplink.Run(ctx, n.uplinkChanged) })
	group.Go(func() error { return n.kernel.Run(ctx, n.wake) })
	if n.needs.Peers {
		group.Go(func() error { return n.Manager.Watch(ctx, n.setSnapshot) })
	}
	group.Go(func() error { return n.keepLease(ctx) })
	group.Go(func() error { return n.loop(ctx) })
	if n.filter != nil {
		group.Go(func() error { return n.filter.Run(ctx) })
	}
	if r, ok := n.backend.(backend.Runner); ok {
		group.Go(func() error { return r.Run(ctx, n.wake) })
	}
	return group.Wait()
}

// prepare finds out what the overlay is and what carries it.
func (n *Network) prepare(ctx context.Context) error {
	config, err := n.Manager.Config(ctx)
	if err != nil {
		return err
	}
	n.checks.config.OK()
	n.config = config
	for _, w := range config.Warnings {
		n.Log.Warn("network configuration", "problem", w)
	}
	backendConfig, warnings, err := n.Backends.Parse(config)
	if err != nil {
		return err
	}
	log := n.Log.With("backend", config.BackendType)
	for _, w := range warnings {
		log.Warn("backend configuration", "problem", w)
	}
	n.needs, n.port = backendConfig.Needs(), backendConfig.Encapsulation().Port
	n.file = readSubnetFile(n.Log, n.SubnetFile, n.State)
	if err := n.prepareUplink(ctx); err != nil {
		return err
	}
	if err := n.prepareBackend(ctx, backendConfig, log); err != nil {
		return err
	}
	n.prepareFilter()
	if err := n.acquire(ctx, n.file.previous.Masked()); err != nil {
		return err
	}
	n.kernel, err = n.NewKernel(n.scope())
	if err != nil {
		return fmt.Errorf("open the kernel's tables: %w", err)
	}
	return nil
}

func (n *Network) prepareUplink(ctx context.Context) error {
	overrides, err := n.Manager.Overrides(ctx)
	if err != nil {
		return err
	}
	n.uplink, err = n.NewUplink(n.config.Enabled(), overrides, n.needs.OnLinkRoutes)
	if err != nil {
		return err
	}
	host, err := n.uplink.Wait(ctx)
	if err != nil {
		return err
	}
	n.checks.uplink.OK()
	up := host.Uplink
	n.Log.Info("uplink found", "dev", up.Name, "mtu", up.MTU, "addr", ipfam.Join(up.Addr), "public", ipfam.Join(up.Public))
	return nil
}

func (n *Network) prepareBackend(ctx context.Context, config backend.Config, log *slog.Logger) error {
	host, _ := n.uplink.Current()
	previous, err := n.Manager.Previous(ctx, host.Uplink.Public, n.file.previous.Masked())
	if err != nil {
		return err
	}
	n.backend, err = config.New(backend.Env{
		Log:       log,
		Families:  n.config.Enabled(),
		Network:   n.config.Network,
		Previous:  previous,
		DeviceMAC: n.DeviceMAC,
		TUNName:   n.TUNName,
		Counter: func(reason string) *atomic.Uint64 {
			c := new(atomic.Uint64)
			n.Metrics.Packets(reason, c.Load)
			return c
		},
	})
	if err != nil {
		return fmt.Errorf("backend %s: %w", n.config.BackendType, err)
	}
	return n.needs.CheckUplink(host.Uplink)
}

// scope returns which routes in the kernel are ours: those inside the configured
// networks and those of an earlier run, and, after flannel, those it has made
// to peers on the uplink's link, if the backend makes such routes. Without a
// subnet.env flannel has not run since the host was started.
func (n *Network) scope() kernel.Scope {
	s := kernel.Scope{Known: n.file.ours}
	adopt := n.file.found && n.needs.OnLinkRoutes
	host, _ := n.uplink.Current()
	own := n.own.Load()
	for f, p := range ipfam.Prefixes(n.config.Network) {
		s.Networks = append(s.Networks, p)
		if adopt && own.Subnet[f].IsValid() {
			s.Adopt = append(s.Adopt, kernel.Adoption{Network: p, Bits: own.Subnet[f].Bits(), Dev: host.Uplink.Name})
		}
	}
	for _, list := range n.file.previous.Network {
		s.Networks = append(s.Networks, list...)
	}
	return s
}

func (n *Network) setSnapshot(s subnet.Snapshot) {
	n.snapshot.Store(&s)
	n.wake()
}

func (n *Network) uplinkChanged() {
	n.attrs.Send()
	n.wake()
}

// wake asks for a pass. It never blocks; wakes that arrive before the pass are
// one.
func (n *Network) wake() { n.kick.Send() }
