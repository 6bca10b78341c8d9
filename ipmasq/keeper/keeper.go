// Package keeper keeps the rules of one daemon in the kernel: it writes them
// when what they are about changes, when somebody has touched them, and looks
// again on a timer.
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
	"flannel/internal/wait"
	"flannel/ipmasq"
)

// Driver puts rules into the kernel.
type Driver interface {
	// Apply makes the kernel hold the rules. It writes nothing when they are
	// there already.
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

// Remover takes away what an earlier run has left elsewhere.
type Remover interface {
	Remove(ctx context.Context, c ipmasq.Config) (ipmasq.Changes, error)
}

// Mode is one way of getting rules into the kernel.
type Mode struct {
	Driver Driver
	// Resync is how often the rules are looked at although nothing asks for it.
	Resync time.Duration
	// Watch calls own when somebody may have touched the rules, and other when
	// something else in the packet filter has changed; nil when there are no
	// such events.
	Watch func(ctx context.Context, own, other func()) error
	// Former are asked once, when the rules are in place for the first time.
	Former []Remover
	// Blocked returns lines about what drops the overlay's packets although our
	// rules are in place; nil when that cannot happen.
	Blocked func(ctx context.Context, c ipmasq.Config) ([]string, error)
}

// Options is what a Keeper is built from.
type Options struct {
	Log *slog.Logger
	// Choose looks at the host and chooses the mode. It is asked until it
	// answers.
	Choose func(ctx context.Context) (Mode, error)
	// Config is what the rules are about but for the subnet, which comes
	// later.
	Config ipmasq.Config
	// ExcludeNodes adds the addresses of all nodes to Config.Exclude.
	ExcludeNodes bool
	// Checked is told how each look at the rules has ended.
	Checked func(error)
	// Dropped is told what each look at the rules of others has found.
	Dropped func(lines []string)
	// Wrote is told what was written to a table; drift is how much of it
	// somebody else had changed.
	Wrote func(table ipmasq.Table, put, deleted, drift int)
}

// Retries of what failed, and rests between passes.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	restFactor = 4
	maxRest    = time.Second
	// blockedEvery bounds how often the rules of others are read.
	blockedEvery = 10 * time.Second
)

// Keeper keeps the rules. Its methods may be called by several goroutines.
type Keeper struct {
	Options
	repeat *logonce.Failures
	kick   chan struct{}
	other  chan struct{}

	mu     sync.Mutex
	subnet ipfam.Pair[netip.Prefix]
	nodes  []netip.Prefix
}

// New returns a keeper that does nothing until Run.
func New(o Options) *Keeper {
	return &Keeper{
		Options: o, repeat: logonce.NewFailures(o.Log, slog.LevelWarn),
		kick: make(chan struct{}, 1), other: make(chan struct{}, 1),
	}
}

// SetSubnet says which subnet this node has. It never blocks.
func (k *Keeper) SetSubnet(s ipfam.Pair[netip.Prefix]) {
	k.mu.Lock()
	changed := k.subnet != s
	k.subnet = s
	k.mu.Unlock()
	if changed {
		signal(k.kick)
	}
}

// SetNodes says which public addresses the nodes have. It never blocks.
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
	changed := !slices.Equal(k.nodes, nodes)
	k.nodes = nodes
	k.mu.Unlock()
	if changed {
		signal(k.kick)
	}
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// config returns what the rules are about; it reports false before there is a
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
		group.Go(func() error {
			return mode.Watch(ctx, func() { signal(k.kick) }, func() { signal(k.other) })
		})
	}
	group.Go(func() error { return k.loop(ctx, mode) })
	return group.Wait()
}

// choose asks for the mode until there is one; an error means that ctx has
// ended.
func (k *Keeper) choose(ctx context.Context) (Mode, error) {
	for delay := firstRetry; ; delay = min(2*delay, lastRetry) {
		mode, err := k.Choose(ctx)
		if ctx.Err() != nil {
			return mode, ctx.Err()
		}
		k.repeat.Fail("choose how rules are written", err)
		if err == nil {
			return mode, nil
		}
		k.Checked(err)
		if err := wait.For(ctx, delay); err != nil {
			return mode, err
		}
	}
}

// looper is what the loop remembers.
type looper struct {
	*Keeper
	mode Mode
	// last is what was applied without an error.
	last    ipmasq.Config
	applied bool
	// cleaned says that nothing of an earlier run is left elsewhere.
	cleaned bool
	retry   time.Duration
	// look asks for a look at the rules of others.
	look    bool
	blocked map[string]bool
	judged  time.Time
}

func (k *Keeper) loop(ctx context.Context, mode Mode) error {
	l := &looper{Keeper: k, mode: mode, retry: firstRetry}
	resync := time.NewTicker(mode.Resync)
	defer resync.Stop()
	var again, judge <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.other:
			if judge == nil && mode.Blocked != nil {
				judge = time.After(time.Until(l.judged.Add(blockedEvery)))
			}
			continue
		case <-judge:
			judge, l.look = nil, true
		case <-resync.C:
			signal(k.other) // not all that drops packets has events
		case <-k.kick:
		case <-again:
		}
		started := time.Now()
		again = l.pass(ctx)
		if l.look { // after a pass: what is missing of our rules is no drop of others
			l.look = false
			l.judge(ctx)
		}
		if err := wait.For(ctx, min(restFactor*time.Since(started), maxRest)); err != nil {
			return err
		}
	}
}

// pass makes the rules right. It returns a channel that fires when a pass that
// failed is to be repeated.
func (l *looper) pass(ctx context.Context) <-chan time.Time {
	c, ok := l.config()
	if !ok {
		return nil
	}
	changes, err := l.mode.Driver.Apply(ctx, c)
	if ctx.Err() != nil {
		return nil
	}
	l.count(changes, l.applied && l.last.Equal(c))
	l.repeat.Fail("rules", err)
	l.Checked(err)
	if err == nil {
		if !l.applied {
			l.look = l.mode.Blocked != nil
		}
		l.last, l.applied = c, true
		err = l.clean(ctx, c)
	}
	if err == nil {
		l.retry = firstRetry
		return nil
	}
	delay := l.retry
	l.retry = min(2*l.retry, lastRetry)
	return time.After(delay)
}

// clean takes away what an earlier run has left elsewhere.
func (l *looper) clean(ctx context.Context, c ipmasq.Config) error {
	if l.cleaned {
		return nil
	}
	var failed error
	for _, r := range l.mode.Former {
		changes, err := r.Remove(ctx, c)
		if len(changes) > 0 {
			l.Log.Info("rules of an earlier run removed", "from", describe(changes))
			l.report(changes, false)
		}
		if err != nil {
			failed = err
		}
	}
	l.repeat.Fail("rules of an earlier run", failed)
	l.cleaned = failed == nil
	return failed
}

// count logs and counts what was written.
func (l *looper) count(changes ipmasq.Changes, drift bool) {
	if len(changes) == 0 {
		return
	}
	msg := "rules written"
	if drift {
		msg = "rules put right that somebody had changed"
	}
	l.Log.Info(msg, "changes", describe(changes))
	l.report(changes, drift)
}

func (l *looper) report(changes ipmasq.Changes, drift bool) {
	for table, n := range changes {
		by := 0
		if drift {
			by = n.Put + n.Deleted
		}
		l.Wrote(table, n.Put, n.Deleted, by)
	}
}

// judge says what drops the overlay's packets all the same: each line once,
// and again when it has come back.
func (l *looper) judge(ctx context.Context) {
	c, ok := l.config()
	if !ok || !c.Forward || !l.applied {
		return
	}
	l.judged = time.Now()
	lines, err := l.mode.Blocked(ctx, c)
	l.repeat.Fail("look for rules that drop the overlay's packets", err)
	if err != nil {
		return
	}
	l.Dropped(lines)
	now := map[string]bool{}
	for _, line := range lines {
		now[line] = true
		if !l.blocked[line] {
			l.Log.Warn("packets of pods are dropped", "why", line)
		}
	}
	if len(now) == 0 && len(l.blocked) > 0 {
		l.Log.Info("packets of pods are not dropped any more")
	}
	l.blocked = now
}
