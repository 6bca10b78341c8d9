package kernel

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"flannel/internal/ipfam"
)

// Apply makes the kernel hold what is wanted. want must not change afterwards;
// it is remembered. With hold nothing stale is deleted except blackhole routes;
// a family of which a device is missing is held in any case. Entries that
// cannot be written do not stop the others: their errors are joined, and
// Stats.Failed has each.
func (r *Reconciler) Apply(ctx context.Context, want State, hold bool) (Stats, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.newPass(ctx, want)
	// First: a change by somebody else during the pass makes the mode suspect, and
	// stays to be found by the next one.
	p.mode = r.mode.Swap(verified)
	p.before, p.hold = r.applied, ipfam.Pair[bool]{hold, hold}
	r.applied = want
	if err := p.run(); err != nil {
		// The cache may be half of the truth.
		r.mode.Store(min(p.mode, suspect))
		p.failures.add(err, both())
	}
	p.stats.DeviceErr, p.stats.Broken = p.deviceFailures.err(), p.deviceFailures.families
	return p.stats, errors.Join(p.stats.DeviceErr, p.failures.err())
}

// pass is one run of Apply, or the answer to some misses.
type pass struct {
	r   *Reconciler
	ctx context.Context
	// want is the state asked for, together with those entries of on-demand
	// peers that have been installed. before is what the last pass was asked
	// for.
	want, before State
	// mode is what the cache was worth before the pass; unless it was verified
	// the tables are listed.
	mode mode
	// incremental means that the tables hold exactly what before holds.
	incremental bool
	// hold keeps what is stale, in each family for which it is set.
	hold  ipfam.Pair[bool]
	stats Stats
	// failures are those of entries that serve peers.
	failures failures
	// deviceFailures are those of our devices and addresses.
	deviceFailures failures
	// served maps gateways to the destinations they serve; made when needed.
	served map[NeighborKey][]netip.Prefix
	// drifted are the devices that somebody else had changed.
	drifted map[string]bool
	// missing holds the names of devices that entries need and nobody has.
	missing map[string]bool
	// used are the devices that routes lead over, by index.
	used map[int]Link
	// waiting are the addresses that the kernel holds packets for.
	waiting []Waiting
	// repeated are routes of ours behind another one with the same key.
	repeated []Entry[RouteKey, RouteValue]
	// last is the device that an entry named last.
	last Link
}

func (r *Reconciler) newPass(ctx context.Context, want State) *pass {
	return &pass{
		r: r, ctx: ctx, want: want, drifted: map[string]bool{}, missing: map[string]bool{}, used: map[int]Link{},
		stats: Stats{Put: map[string]int{}, Deleted: map[string]int{}, Drift: map[string]int{}},
	}
}

// run does the pass. It returns an error only if the pass could not go on.
func (p *pass) run() error {
	r := p.r
	p.updateOnDemand(time.Now())
	undisturbed := p.mode == verified && r.converged && slices.EqualFunc(p.want.Devices, p.before.Devices, sameDevice)
	r.converged = false
	if !undisturbed {
		if err := p.applyLinks(); err != nil {
			return err
		}
	}
	// On demand the tables hold less or more than is planned.
	p.incremental = undisturbed && !p.want.hasOnDemand() && !p.before.hasOnDemand()
	old := r.cache.tables
	if p.mode != verified {
		p.stats.Listed = true
		if err := p.list(); err != nil {
			return err
		}
	}
	if err := p.writeTables(old); err != nil {
		return err
	}
	p.mode = verified
	if p.hold == (ipfam.Pair[bool]{}) && p.failures.count+p.deviceFailures.count == 0 {
		clear(r.adoptable)
		r.converged = true
	}
	if err := p.ctx.Err(); err != nil {
		return err
	}
	return p.deleteFormer()
}

// writeTables puts what is missing in the order in which entries rely on each
// other, then deletes what is stale in reverse.
func (p *pass) writeTables(old tables) error {
	p.addInstalled()
	now, b := p.r.cache.tables, &p.r.backing
	addrs := compare(p, b.Addrs, now.addrs, old.addrs, deviceAddrs(p.want), deviceAddrs(p.before), p.addrEntry)
	w := tableWork{
		fdb:       compare(p, b.FDB, now.fdb, old.fdb, p.want.FDB, p.before.FDB, p.fdbEntry),
		neighbors: compare(p, b.Neighbors, now.neighbors, old.neighbors, p.want.Neighbors, p.before.Neighbors, p.neighborEntry),
		routes:    compare(p, b.Routes, now.routes, old.routes, p.want.Routes, p.before.Routes, p.routeEntry),
	}
	p.failMissing()
	addrs.hold(func(k AddrKey, _ struct{}) bool { return p.holds(k.Prefix.Addr()) })
	w.fdb.hold(func(_ FDBKey, v FDBValue) bool { return p.holds(v.Dst) })
	w.neighbors.hold(func(k NeighborKey, _ MAC) bool { return p.holds(k.Addr) })
	replaced := p.replaced(w.routes)
	// A blackhole route serves no peer.
	w.routes.hold(func(k RouteKey, v RouteValue) bool {
		return !v.Blackhole && !replaced[k] && p.holds(k.Dst.Addr())
	})
	if err := p.r.watchUsed(p.used, p.r.cache.blocked); err != nil {
		return err
	}
	return p.steps(
		func() { addrs.put(addrs.puts, p.addrFailed) },
		func() { w.fdb.put(w.fdb.puts, p.fdbFailed) },
		func() { w.neighbors.put(w.neighbors.puts, p.neighborFailed) },
		func() { p.delUncached(w.routes, p.repeated) },
		func() { p.watchBlocked(p.checkPreceding(w.routes, p.putRoutes(w.routes))) },
		func() { p.delRoutes(w.routes) },
		func() { w.neighbors.del(NeighborKey.name) },
		func() { w.fdb.del(FDBKey.name) },
		func() { addrs.del(AddrKey.name) },
	)
}

// tableWork is what there is to do in the tables of entries that serve peers.
type tableWork struct {
	fdb       *work[FDBKey, FDBValue]
	neighbors *work[NeighborKey, MAC]
	routes    *work[RouteKey, RouteValue]
}

// steps carries out one step after the other until the context ends.
func (p *pass) steps(steps ...func()) error {
	for _, step := range steps {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		step()
	}
	return nil
}

// holds reports whether stale entries of the family of an address stay. For an
// entry without address either family counts.
func (p *pass) holds(a netip.Addr) bool {
	if !a.IsValid() {
		return p.hold[ipfam.V4] || p.hold[ipfam.V6]
	}
	return p.hold[ipfam.Of(a)]
}

// list reads our entries of all tables into the cache. It does so again if
// somebody has changed something meanwhile.
func (p *pass) list() error {
	const attempts = 3
	for range attempts {
		p.r.cache.recordEvents(true)
		t, others, err := p.read()
		if err != nil {
			p.r.cache.recordEvents(false)
			return err
		}
		if !p.r.replaceCache(t, others) {
			return nil
		}
	}
	return errors.New("the tables keep changing while they are listed")
}

func (p *pass) read() (t tables, others map[RouteKey]RouteValue, err error) {
	r := p.r
	b, now := &r.backing, r.cache.tables
	s := Selection{Unmarked: len(r.adoptable)+len(r.owned)+len(r.former) > 0, Others: r.scope.families()}
	for _, l := range r.owned {
		s.Devices = append(s.Devices, l.Index)
	}
	t.addrs, err = collect(b.Addrs, s, len(now.addrs), func(k AddrKey, _ struct{}) bool { return p.isOurAddr(k) })
	if err != nil {
		return t, nil, err
	}
	t.fdb, err = collect(b.FDB, s, max(len(now.fdb), len(p.want.FDB)), func(k FDBKey, _ FDBValue) bool { return hasIndex(r.owned, k.Dev) })
	if err != nil {
		return t, nil, err
	}
	t.neighbors, err = collect(b.Neighbors, s, max(len(now.neighbors), len(p.want.Neighbors)), func(k NeighborKey, _ MAC) bool { return hasIndex(r.owned, k.Dev) })
	if err != nil {
		return t, nil, err
	}
	others, err = p.readRoutes(s, &t)
	return t, others, err
}

// readRoutes reads our routes, and those of others that win against them. Of
// several with the same key only the first counts; those of ours behind it are
// noted as repeated.
func (p *pass) readRoutes(s Selection, t *tables) (others map[RouteKey]RouteValue, err error) {
	r := p.r
	t.routes = make(map[RouteKey]RouteValue, max(len(r.cache.tables.routes), len(p.want.Routes)))
	list := func() error {
		clear(t.routes)
		others, p.repeated = map[RouteKey]RouteValue{}, nil
		var last, lastOurs RouteKey
		return r.backing.Routes.List(s, func(k RouteKey, v RouteValue) {
			switch ours := r.isOurs(k, v) || r.adopts(k, v); {
			case ours && k == lastOurs:
				p.repeated = append(p.repeated, Entry[RouteKey, RouteValue]{k, v})
			case ours:
				t.routes[k] = v
				lastOurs = k
			case k != last && r.scope.mayPrecede(k):
				others[k] = v
			}
			last = k
		})
	}
	err = r.backing.Routes.listAgain(list)
	return others, err
}

// dev returns the index of a device; without one, the device is missing. Long
// runs of entries name the same device.
func (p *pass) dev(name string) (index int, ok bool) {
	if p.last.Index == 0 || p.last.Name != name {
		if p.last, ok = p.r.links[name]; !ok {
			p.missing[name] = true
		}
	}
	return p.last.Index, p.last.Index != 0
}

// The functions below turn an entry of a State into one of the kernel's tables.
// ok is false if its device is missing.

func (p *pass) addrEntry(a deviceAddr) (k AddrKey, v struct{}, ok bool) {
	dev, ok := p.dev(a.dev)
	return AddrKey{dev, a.addr}, v, ok
}

func (p *pass) fdbEntry(e FDBEntry) (k FDBKey, v FDBValue, ok bool) {
	dev, ok := p.dev(e.Dev)
	return FDBKey{dev, e.MAC}, FDBValue{Dst: e.Dst}, ok
}

func (p *pass) neighborEntry(n Neighbor) (k NeighborKey, mac MAC, ok bool) {
	dev, ok := p.dev(n.Dev)
	return NeighborKey{dev, n.Addr}, n.MAC, ok
}

func (p *pass) routeEntry(r Route) (k RouteKey, v RouteValue, ok bool) {
	dev, ok := 0, true
	if !r.Blackhole {
		dev, ok = p.dev(r.Dev)
		if _, noted := p.used[dev]; ok && !noted {
			p.used[dev] = p.last
		}
	}
	k, v = r.Entry(dev)
	return k, v, ok
}

// deviceAddr is an address of a device of ours.
type deviceAddr struct {
	dev  string
	addr netip.Prefix
}

func deviceAddrs(s State) (list []deviceAddr) {
	for _, d := range s.Devices {
		for _, a := range d.Addrs {
			list = append(list, deviceAddr{d.Name, a})
		}
	}
	return list
}
