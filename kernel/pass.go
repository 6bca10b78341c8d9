package kernel

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"flannel/internal/ipfam"
)

// pass is one run of Apply.
type pass struct {
	*reconciler
	ctx context.Context
	// unsure says that the tables are listed.
	unsure bool
	// hold keeps what is stale, in each family for which it is set.
	hold ipfam.Pair[bool]
	// settledBefore says that the tables hold exactly what before says.
	settledBefore bool
	before        State
	stats         Stats
	// failures are those of entries that serve peers.
	failures failures
	// deviceFailures are those of our own devices and addresses.
	deviceFailures failures
	// served maps gateways to the destinations they serve; made when needed.
	served map[neighKey][]netip.Prefix
	// drifted are the devices that somebody else had changed.
	drifted []string
	// missing holds the names of devices that entries need and nobody has.
	missing map[string]bool

	// asked are the answers that somebody has asked for.
	asked []Answer

	// used are the devices that routes lead over.
	used map[int]link

	lastName  string
	lastIndex int
}

// run does the pass. It returns an error only when the pass could not go on.
func (p *pass) run() error {
	if p.unsure || p.unresolved || !slices.EqualFunc(p.want.Devices, p.before.Devices, sameDevice) {
		p.settled = false
		if err := p.applyLinks(); err != nil {
			return err
		}
	}
	p.index(time.Now())
	p.settledBefore = p.settled && !p.unsure && !p.onDemand()
	p.settled = false
	old := p.snapshot()
	if p.unsure {
		p.stats.Listed = true
		if err := p.list(); err != nil {
			return err
		}
	}
	if err := p.writeTables(old); err != nil {
		return err
	}
	p.primed = true
	if p.hold == (ipfam.Pair[bool]{}) && p.failures.count+p.deviceFailures.count == 0 {
		p.left, p.settled = nil, true
	}
	if err := p.ctx.Err(); err != nil {
		return err
	}
	return p.deleteFormer()
}

// holds reports whether stale entries of the family of an address stay. For an
// entry without address either family counts.
func (p *pass) holds(a netip.Addr) bool {
	if !a.IsValid() {
		return p.hold[ipfam.V4] || p.hold[ipfam.V6]
	}
	return p.hold[ipfam.Of(a)]
}

// onDemand reports whether the tables may hold less or more than the plan says.
func (p *pass) onDemand() bool {
	return len(p.want.Answers)+len(p.before.Answers)+len(p.want.Catches)+len(p.before.Catches) > 0
}

// writeTables puts what is missing in the order in which entries rely on each
// other, then deletes what is stale in reverse.
func (p *pass) writeTables(old tables) error {
	p.asked = p.askedFor(p.want.Answers)
	maps.DeleteFunc(p.gaps, func(k routeKey, _ time.Time) bool {
		_, there := p.routes[k]
		return !there
	})
	addrs := plan(p, p.edge.addrs, p.addrs, old.addrs, p.addrEntries(p.want.Devices, nil))
	fdb := planEntries(p, p.edge.fdb, p.fdb, old.fdb, p.want.FDB, p.before.FDB, p.fdbEntries)
	neighbors := planEntries(p, p.edge.neighbors, p.neighbors, old.neighbors, p.want.Neighbors, p.before.Neighbors, p.neighborEntries)
	routes := planEntries(p, p.edge.routes, p.routes, old.routes, p.want.Routes, p.before.Routes, p.routeEntries)
	p.unresolved = len(p.missing) > 0
	p.fileMissing()
	addrs.hold(func(k addrKey, _ struct{}) bool { return p.holds(k.prefix.Addr()) })
	fdb.hold(func(_ fdbKey, v fdbValue) bool { return p.holds(v.dst) })
	neighbors.hold(func(k neighKey, _ MAC) bool { return p.holds(k.addr) })
	// A route that drops packets serves no peer.
	routes.hold(func(k routeKey, v routeValue) bool { return !v.blackhole && p.holds(k.dst.Addr()) })
	if err := p.watchUsed(); err != nil {
		return err
	}
	steps := []func(){
		func() { addrs.write(addrs.puts, p.addrFailed) },
		func() { fdb.write(fdb.puts, p.fdbFailed) },
		func() { neighbors.write(neighbors.puts, p.neighborFailed) },
		func() { p.keepWatching(p.putRoutes(routes)) },
		func() { routes.del(routeKey.name) },
		func() { neighbors.del(neighKey.name) },
		func() { fdb.del(fdbKey.name) },
		func() { addrs.del(addrKey.name) },
	}
	for _, step := range steps {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		step()
	}
	return nil
}
