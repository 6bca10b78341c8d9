package kernel

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"flannel/kernel/rtnl"
)

// Reconciler makes the tables behind a backing what is wanted. It remembers
// what they should hold, so that a pass without changes does no I/O and events
// can be compared with it. Its methods can be called at the same time.
type Reconciler struct {
	log     *slog.Logger
	scope   Scope
	backing Backing
	// unused is the time without traffic after which the entries of an
	// on-demand peer are removed.
	unused time.Duration
	// installed is Options.Installed.
	installed func(netip.Prefix)
	counters  counters
	// mode is what the cache is worth.
	mode atomic.Int32

	// mu is held for a whole pass and while misses are answered. It guards the
	// fields below; the cache has its own lock as well.
	mu sync.Mutex
	// applied is the last state asked for.
	applied State
	// converged means that the last pass left nothing undone: the tables hold
	// what applied holds and no more.
	converged bool
	// links holds all devices by name as last listed.
	links map[string]Link
	// owned are the devices in applied that are ours, former those of earlier
	// configurations.
	owned, former []Link
	// prepared are the indexes of devices that Prepare has been called for.
	prepared map[int]bool
	// adoptable are the unmarked routes that may be adopted; nil until they
	// have been looked for.
	adoptable map[RouteKey]RouteValue
	// subscribed is which events the backing passes on.
	subscribed Subscription
	onDemand   onDemand
	cache      cache
}

// mode is whether a pass can trust the cache or has to list the tables.
type mode = int32

const (
	// unlisted: the tables have never been listed.
	unlisted mode = iota
	// suspect: somebody else may have changed the tables since.
	suspect
	// verified: the tables hold what the cache holds.
	verified
)

type counters struct {
	missesAnswered, missesUnknown, overruns, tampering atomic.Uint64
}

const defaultUnused = 5 * time.Minute

// NewReconciler returns a Reconciler over a backing of which nothing is known.
func NewReconciler(log *slog.Logger, scope Scope, b Backing) *Reconciler {
	return &Reconciler{
		log: log, scope: scope, backing: b, unused: defaultUnused, installed: func(netip.Prefix) {}, prepared: map[int]bool{}, cache: newCache(),
		onDemand: onDemand{blackholes: map[RouteKey]time.Time{}},
	}
}

// Invalidate makes the next pass list the kernel's tables instead of trusting
// the cache.
func (r *Reconciler) Invalidate() { r.mode.CompareAndSwap(verified, suspect) }

// Counters returns the counters as they are.
func (r *Reconciler) Counters() Counters {
	return Counters{
		MissesAnswered: r.counters.missesAnswered.Load(),
		MissesUnknown:  r.counters.missesUnknown.Load(),
		Overruns:       r.counters.overruns.Load(),
		Tampering:      r.counters.tampering.Load(),
	}
}

// Host reads the addresses and default gateways of this host.
func (r *Reconciler) Host(ctx context.Context) (Host, error) {
	if err := ctx.Err(); err != nil {
		return Host{}, err
	}
	return r.backing.Host()
}

// Destinations returns the destinations of our routes to peers that the kernel holds,
// including those that flannel may have left. Routes to peers have a gateway:
// a blackhole, or a route straight to a device, leads to no peer. It is meant
// for the time before the first Apply.
func (r *Reconciler) Destinations(ctx context.Context) ([]netip.Prefix, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := r.listLinks(); err != nil {
		return nil, err
	}
	if err := r.decideAdoption(); err != nil {
		return nil, err
	}
	var held []netip.Prefix
	found, err := collect(r.backing.Routes, Selection{Unmarked: true}, 0, func(k RouteKey, v RouteValue) bool {
		_, adoptable := r.adoptable[k]
		return v.Via.IsValid() && (r.isOurs(k, v) || adoptable && r.scope.inside(k.Dst))
	})
	for k := range found {
		held = append(held, k.Dst)
	}
	return held, err
}

// Run follows the events of the kernel until ctx ends: it answers L3 misses and
// calls changed, which must not block, when somebody else may have changed what
// is ours. The next Apply then lists the tables. One Run at a time.
func (r *Reconciler) Run(ctx context.Context, changed func()) error {
	m := &misses{r: r, queue: make(chan Miss, missQueue)}
	var others sync.WaitGroup
	others.Go(func() { m.run(ctx) })
	others.Go(func() { r.expireUnused(ctx) })
	defer others.Wait()
	suspect := func() {
		r.Invalidate()
		changed()
	}
	r.backing.Follow(ctx, Observer{
		Suspect: suspect,
		Lost: func() {
			r.counters.overruns.Add(1)
			r.log.Info("kernel events lost, comparing everything")
			suspect()
		},
		Event: func(e rtnl.Message) {
			if r.isTampering(e) {
				r.counters.tampering.Add(1)
				suspect()
			}
		},
		Question: func(e rtnl.Message) {
			if miss, ok := r.miss(e); ok {
				m.add(miss)
			}
		},
	})
	return ctx.Err()
}

// Close releases what the backing holds. Apply and Run must have returned.
func (r *Reconciler) Close() error { return r.backing.Close() }
