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
		k.failures.Fail("choose how rules are written", err)
		if err == nil {
			return mode, nil
		}
		k.Checked(err)
		if err := backoff.Wait(ctx); err != nil {
			return mode, err
		}
	}
}

// passState is what the loop knows of earlier passes.
type passState struct {
	keeper *Keeper
	mode   Mode
	// last is what was applied without an error; nil before.
	last *ipmasq.Config
	// cleaned says that nothing of an earlier run is left elsewhere.
	cleaned bool
	// lookDue asks for a look at the rules of others.
	lookDue bool
	looked  time.Time
	blocked map[string]bool
}

func (k *Keeper) loop(ctx context.Context, mode Mode) error {
	p := &passState{keeper: k, mode: mode}
	resync := time.NewTicker(mode.Resync)
	defer resync.Stop()
	var pace loop.Loop
	var look <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.others:
			if look == nil && mode.Blocked != nil {
				look = time.After(time.Until(p.looked.Add(blockedEvery)))
			}
			continue
		case <-look:
			look, p.lookDue = nil, true
		case <-resync.C:
			k.others.Send() // not all that drops packets has events
		case <-k.changed:
		case <-pace.Again():
		}
		if err := pace.Pass(ctx, p.pass); err != nil {
			return err
		}
	}
}

// pass makes the kernel hold the rules, and then looks at those of others: what
// is missing of our rules is no drop of others.
func (p *passState) pass(ctx context.Context) error {
	c, ok := p.keeper.config()
	if !ok {
		return nil
	}
	_, err := p.apply(ctx, c)
	if p.lookDue && ctx.Err() == nil {
		p.lookDue = false
		p.look(ctx, c)
	}
	return err
}

// apply makes the kernel hold the rules, and reports whether something was written.
func (p *passState) apply(ctx context.Context, c ipmasq.Config) (changed bool, err error) {
	changes, err := p.mode.Driver.Apply(ctx, c)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if len(changes) > 0 {
		drift, message := p.last != nil && p.last.Equal(c), "rules written"
		if drift {
			message = "rules restored that somebody had changed"
		}
		p.keeper.report(message, "changes", changes, drift)
	}
	p.keeper.failures.Fail("rules", err)
	p.keeper.Checked(err)
	if err != nil {
		return false, err
	}
	p.lookDue = p.lookDue || p.last == nil && p.mode.Blocked != nil
	p.last = &c
	return len(changes) > 0, p.clean(ctx, c)
}

// clean removes what an earlier run has left elsewhere.
func (p *passState) clean(ctx context.Context, c ipmasq.Config) error {
	if p.cleaned {
		return nil
	}
	var errs []error
	for _, r := range p.mode.Former {
		changes, err := r.Remove(ctx, c)
		if len(changes) > 0 {
			p.keeper.report("rules of an earlier run removed", "from", changes, false)
		}
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	p.keeper.failures.Fail("rules of an earlier run", err)
	p.cleaned = err == nil
	return err
}

// report logs and counts what was written; drift is what somebody else had
// changed.
func (k *Keeper) report(message, key string, changes ipmasq.Changes, drift bool) {
	k.Log.Info(message, key, changes.String())
	for table, n := range changes {
		by := 0
		if drift {
			by = n.Put + n.Deleted
		}
		k.Wrote(table, n.Put, n.Deleted, by)
	}
}

// look reports what drops the overlay's packets although our rules are in place:
// each line once, and again if it comes back.
func (p *passState) look(ctx context.Context, c ipmasq.Config) {
	if !c.Forward || p.last == nil {
		return
	}
	k := p.keeper
	p.looked = time.Now()
	lines, err := p.mode.Blocked(ctx, c)
	k.failures.Fail("look for rules that drop the overlay's packets", err)
	if err != nil {
		return
	}
	if slices.ContainsFunc(lines, func(line string) bool { return !p.blocked[line] }) {
		// Our rules may have been missing during the look, which is no drop of others.
		if changed, err := p.apply(ctx, c); changed || err != nil {
			k.others.Send()
			return
		}
	}
	k.Dropped(lines)
	now := map[string]bool{}
	for _, line := range lines {
		now[line] = true
		if !p.blocked[line] {
			k.Log.Warn("packets of pods are dropped", "why", line)
		}
	}
	if len(now) == 0 && len(p.blocked) > 0 {
		k.Log.Info("packets of pods are no longer dropped")
	}
	p.blocked = now
}
