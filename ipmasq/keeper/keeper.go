// Package keeper keeps the rules of one daemon in the kernel: it writes them when
// the configuration changes or somebody has changed them, and checks them on a
// timer.
package keeper

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/internal/health"
	"flannel/internal/ipfam"
	"flannel/internal/logonce"
	"flannel/internal/loop"
	"flannel/ipmasq"
)

// Driver puts rules into the kernel.
type Driver interface {
	// Apply makes the kernel hold the rules. It writes nothing if they are there
	// already.
	Apply(ctx context.Context, c ipmasq.Config) (ipmasq.Changes, error)
}

// Several keeps the rules in several places at once, with a driver for each.
type Several []Driver

// Apply makes the kernel hold the rules in all places.
func (s Several) Apply(ctx context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	all := ipmasq.Changes{}
	var errs []error
	for _, d := range s {
		changes, err := d.Apply(ctx, c)
		for table, n := range changes {
			all.Add(table, n.Put, n.Deleted)
		}
		errs = append(errs, err)
	}
	return all, errors.Join(errs...)
}

// Remover removes what an earlier run has left elsewhere.
type Remover interface {
	Remove(ctx context.Context, c ipmasq.Config) (ipmasq.Changes, error)
}

// Mode is one way of getting rules into the kernel.
type Mode struct {
	Driver Driver
	// Resync is how often the rules are checked without an event.
	Resync time.Duration
	// Watch calls own when somebody may have changed the rules, and other when
	// something else in the packet filter has changed; nil if there are no such
	// events.
	Watch func(ctx context.Context, own, other func()) error
	// Former are called once, when the rules are in place for the first time.
	Former []Remover
	// Blocked returns a line for everything that drops the overlay's packets
	// although our rules are in place; nil if that cannot happen.
	Blocked func(ctx context.Context, c ipmasq.Config) ([]string, error)
}

// Options is what a Keeper is built from.
type Options struct {
	Log *slog.Logger
	// Choose looks at the host and chooses the mode. It is called until it
	// succeeds.
	Choose func(ctx context.Context) (Mode, error)
	// Config is what the rules depend on, without the subnet, which comes later.
	Config ipmasq.Config
	// ExcludeNodes adds the addresses of all nodes to Config.Exclude.
	ExcludeNodes bool
	// Checked is called with the result of each check of the rules.
	Checked func(error)
	// Dropped is called with what each look at the rules of others has found.
	Dropped func(lines []string)
	// Wrote is called with what was written to a table; drift is how much of it
	// somebody else had changed.
	Wrote func(table ipmasq.Table, put, deleted, drift int)
	// Loop is told what Run does; it may be nil. The driver notes where it waits for
	// commands.
	Loop *health.Loop
}

// blockedEvery bounds how often the rules of others are read.
const blockedEvery = 10 * time.Second

// Keeper keeps the rules. Its methods may be called by several goroutines.
type Keeper struct {
	Options
	failures *logonce.Failures
	// changed asks for a pass, others for a look at the rules of others.
	changed, others loop.Signal

	mu     sync.Mutex
	subnet ipfam.Pair[netip.Prefix]
	nodes  []netip.Prefix
}

// New returns a keeper that does nothing until Run.
func New(o Options) *Keeper {
	return &Keeper{
		Options: o, failures: logonce.NewFailures(o.Log, slog.LevelWarn),
		changed: loop.NewSignal(), others: loop.NewSignal(),
	}
}

// SetSubnet sets the subnet of this node. It never blocks.
func (k *Keeper) SetSubnet(s ipfam.Pair[netip.Prefix]) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.subnet != s {
		k.subnet = s
		k.changed.Send()
	}
}

// SetNodes sets the public addresses of the nodes. It never blocks.
func (k *Keeper) SetNodes(addrs []netip.Addr) {
	if !k.ExcludeNodes {
		return
	}
	nodes := make([]netip.Prefix, 0, len(addrs))
	for _, a := range addrs {
		nodes = append(nodes, ipfam.Host(a))
	}
	slices.SortFunc(nodes, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	nodes = slices.Compact(nodes)
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Equal(k.nodes, nodes) {
		k.nodes = nodes
		k.changed.Send()
	}
}

// config returns what the rules depend on; it reports false before there is a
// subnet.
func (k *Keeper) config() (ipmasq.Config, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.Config
	c.Subnet = k.subnet
	c.Exclude = slices.Concat(c.Exclude, k.nodes)
	return c, k.subnet != ipfam.Pair[netip.Prefix]{}
}

// Run keeps the rules until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	mode, err := k.choose(ctx)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	if mode.Watch != nil {
		group.Go(func() error { return mode.Watch(ctx, k.changed.Send, k.others.Send) })
	}
	group.Go(func() error { return k.loop(ctx, mode) })
	return group.Wait()
}

// choose asks for the mode until there is one; an error means that ctx has
// ended.
func (k *Keeper) choose(ctx context.Context) (Mode, error) {
	var backoff loop.Backoff
	for {
		mode, err := k.Choose(ctx)
		if ctx.Err() != nil {
			return mode, ctx.Err()
		}
		k.failures.Fail("choosing how the rules are written", err)
		if err == nil {
			return mode, nil
		}
		k.Checked(err)
		if err := backoff.Wait(ctx); err != nil {
			return mode, err
		}
	}
}
