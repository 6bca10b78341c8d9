package kernel

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"
)

// reconciler makes the tables behind an edge what is wanted. It remembers what
// they should hold, so that a pass without changes does no I/O, and events
// can be judged.
type reconciler struct {
	log   *slog.Logger
	scope Scope
	edge  edge

	// unsure says that the kernel may differ from what is remembered.
	unsure   atomic.Bool
	counters counters

	// pass is held for a whole pass and for the answer to a miss.
	pass sync.Mutex
	// want is the last state asked for.
	want State
	// primed says that the tables have been listed before.
	primed bool
	// left are the unmarked routes that may be taken over; adoptKnown says
	// that they have been looked for.
	left       map[routeKey]routeValue
	adoptKnown bool
	// links holds all devices by name as last listed.
	links map[string]link
	// owned are the devices in want that are ours, former those of earlier
	// configurations.
	owned, former []link
	// prepared are the indexes of devices that Prepare has been called for.
	prepared map[int]bool
	// settled says that the last pass has left nothing undone: the tables hold
	// what want says and no more.
	settled bool
	// unresolved says that a device was missing in the last pass.
	unresolved bool

	demand
	memory
}

// memory is what the tables should hold: what was listed, changed by what was
// written. Events are compared with it, so it changes before the kernel does.
// Only the holder of the pass changes entries, and takes the lock for it; it
// reads them without. Who judges events takes the lock.
type memory struct {
	lock sync.Mutex
	// listing says that the tables are being listed. Events that come
	// meanwhile are kept in unjudged, to be judged again afterwards.
	listing   bool
	unjudged  []rtnl.Message
	watched   map[int]watchedLink
	addrs     map[addrKey]struct{}
	fdb       map[fdbKey]fdbValue
	neighbors map[neighKey]MAC
	routes    map[routeKey]routeValue
	// blocked are the routes of which another has the key. The map itself does
	// not change.
	blocked map[routeKey]bool
}

// newMemory remembers nothing. A miss may write to it before anything is
// listed.
func newMemory() memory {
	return memory{
		watched: map[int]watchedLink{}, addrs: map[addrKey]struct{}{}, fdb: map[fdbKey]fdbValue{},
		neighbors: map[neighKey]MAC{}, routes: map[routeKey]routeValue{},
	}
}

// watchedLink is a device whose events matter.
type watchedLink struct {
	link
	// own devices are ours; of the others only their being up matters.
	own           bool
	txChecksumOff bool
}

type counters struct {
	missesAnswered, missesUnknown, overruns, tampering atomic.Uint64
}

func newReconciler(log *slog.Logger, scope Scope, e edge) *reconciler {
	r := &reconciler{log: log, scope: scope, edge: e, prepared: map[int]bool{}, memory: newMemory()}
	r.unsure.Store(true)
	return r
}

// Invalidate makes the next pass list the kernel's tables instead of trusting
// what is remembered.
func (r *reconciler) Invalidate() { r.unsure.Store(true) }

// Counters returns the counters as they are.
func (r *reconciler) Counters() Counters {
	return Counters{
		MissesAnswered: r.counters.missesAnswered.Load(),
		MissesUnknown:  r.counters.missesUnknown.Load(),
		Overruns:       r.counters.overruns.Load(),
		Tampering:      r.counters.tampering.Load(),
	}
}

// Held returns the destinations of our routes to peers that the kernel holds,
// those that flannel may have left included. Peers have a gateway: routes that
// drop packets or lead straight to a device are none's. It is meant for the time
// before the first Apply.
func (r *reconciler) Held(ctx context.Context) ([]netip.Prefix, error) {
	r.pass.Lock()
	defer r.pass.Unlock()
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
	found, err := collect(r.edge.routes, selection{unmarked: true}, 0, func(k routeKey, v routeValue) bool {
		_, left := r.left[k]
		return v.via.IsValid() && (r.ownRoute(k, v) || left && r.scope.inside(k.dst))
	})
	for k := range found {
		held = append(held, k.dst)
	}
	return held, err
}

// Apply makes the kernel hold what is wanted. want must not change afterwards;
// it is remembered. With hold nothing stale is deleted but routes that drop
// packets; a family with a device missing is held anyhow. Entries that cannot be written do not stop the others:
// their errors are joined, and Stats.Failed has each.
func (r *reconciler) Apply(ctx context.Context, want State, hold bool) (Stats, error) {
	r.pass.Lock()
	defer r.pass.Unlock()
	p := r.newPass(ctx)
	p.unsure, p.hold, p.before = r.unsure.Swap(false), ipfam.Pair[bool]{hold, hold}, r.want
	r.want = want
	if err := p.run(); err != nil {
		// What is remembered may be half of the truth.
		r.unsure.Store(true)
		p.failures.add(err, both())
	}
	p.stats.DeviceErr, p.stats.Broken = p.deviceFailures.err(), p.deviceFailures.families
	return p.stats, errors.Join(p.stats.DeviceErr, p.failures.err())
}

func (r *reconciler) newPass(ctx context.Context) *pass {
	return &pass{reconciler: r, ctx: ctx, stats: Stats{Put: map[string]int{}, Deleted: map[string]int{}, Drift: map[string]int{}}}
}
