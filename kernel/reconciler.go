package kernel

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// reconciler makes the tables behind a backing what is wanted. It remembers
// what they should hold, so that a pass without changes does no I/O and events
// can be compared with it.
type reconciler struct {
	log      *slog.Logger
	scope    Scope
	backing  backing
	counters counters
	// mode is a mode: what the cache is worth.
	mode atomic.Int32

	// mu is held for a whole pass and while misses are answered. It guards the
	// fields below; the cache has a lock of its own as well.
	mu sync.Mutex
	// applied is the last state asked for.
	applied State
	// converged says that the last pass left nothing undone: the tables hold
	// what applied says and no more.
	converged bool
	// links holds all devices by name as last listed.
	links map[string]link
	// owned are the devices in applied that are ours, former those of earlier
	// configurations.
	owned, former []link
	// prepared are the indexes of devices that Prepare has been called for.
	prepared map[int]bool
	// adoptable are the unmarked routes that may be adopted; nil until they
	// have been looked for.
	adoptable map[routeKey]routeValue
	onDemand  onDemand
	cache     cache
}

// mode says whether a pass can trust the cache or has to list the tables.
type mode = int32

const (
	// unlisted: the tables have never been listed.
	unlisted mode = iota
	// suspect: somebody else may have changed the tables since.
	suspect
	// verified: the tables hold what the cache says.
	verified
)

type counters struct {
	missesAnswered, missesUnknown, overruns, tampering atomic.Uint64
}

func newReconciler(log *slog.Logger, scope Scope, b backing) *reconciler {
	return &reconciler{
		log: log, scope: scope, backing: b, prepared: map[int]bool{}, cache: newCache(),
		onDemand: onDemand{blackholes: map[routeKey]time.Time{}},
	}
}

// Invalidate makes the next pass list the kernel's tables instead of trusting
// the cache.
func (r *reconciler) Invalidate() { r.mode.CompareAndSwap(verified, suspect) }

// Counters returns the counters as they are.
func (r *reconciler) Counters() Counters {
	return Counters{
		MissesAnswered: r.counters.missesAnswered.Load(),
		MissesUnknown:  r.counters.missesUnknown.Load(),
		Overruns:       r.counters.overruns.Load(),
		Tampering:      r.counters.tampering.Load(),
	}
}

// Host reads the addresses and default gateways of this host.
func (r *reconciler) Host(ctx context.Context) (Host, error) {
	if err := ctx.Err(); err != nil {
		return Host{}, err
	}
	return r.backing.host()
}

// Held returns the destinations of our routes to peers that the kernel holds,
// including those that flannel may have left. Routes to peers have a gateway:
// a blackhole, or a route straight to a device, leads to no peer. Held is meant
// for the time before the first Apply.
func (r *reconciler) Held(ctx context.Context) ([]netip.Prefix, error) {
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
	found, err := collect(r.backing.routes, selection{unmarked: true}, 0, func(k routeKey, v routeValue) bool {
		_, adoptable := r.adoptable[k]
		return v.via.IsValid() && (r.isOurs(k, v) || adoptable && r.scope.inside(k.dst))
	})
	for k := range found {
		held = append(held, k.dst)
	}
	return held, err
}
