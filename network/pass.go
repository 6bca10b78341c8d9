package network

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/subnet"
)

// pass makes the kernel hold what follows from the latest leases. An error means that it
// was incomplete and is to be repeated.
func (p *passState) pass(ctx context.Context) error {
	snapshot, own := p.n.snapshot.Load(), p.n.own.Load()
	host, gone := p.n.uplink.Current()
	p.n.checks.uplink.Set(gone)
	if snapshot == nil || own == nil {
		return nil
	}
	started := time.Now()
	p.readSite(ctx, host.Uplink)
	r := p.plan(*snapshot, *own, host)
	r.at, r.gone = started, gone
	if r.err == nil {
		r.planned = true
		r.stats, r.err = p.n.kernel.Apply(ctx, r.state, r.hold)
		p.use(&r)
	}
	if ctx.Err() != nil {
		return nil
	}
	r.took = time.Since(started)
	p.finish(&r)
	return r.err
}

// result is what one pass found and did.
type result struct {
	at     time.Time
	own    subnet.Lease
	host   backend.Host
	gone   error // what is wrong with the uplink
	leases int   // in the snapshot
	// records is which of them may be used.
	records subnet.Validation
	state   kernel.State
	planned bool
	peers   []backend.PeerStatus
	since   []int64 // of each peer, when it was reached as it is; see compare
	hold    bool    // delete nothing
	kept    int
	stats   kernel.Stats
	took    time.Duration
	err     error
}

// plan turns the leases into the wanted state; it does no I/O.
func (p *passState) plan(snapshot subnet.Snapshot, own subnet.Lease, host backend.Host) result {
	leases := p.guard.admit(snapshot, own.Subnet)
	r := result{own: own, host: host, leases: len(snapshot.Leases), kept: len(p.guard.kept)}
	r.hold = snapshot.Unconfirmed || p.guard.holdDeletions()
	r.records = p.validator.Validate(&p.site.validation, &r.own, leases)
	p.filterNodes(own, r.records)
	if r.err = p.n.needs.CheckUplink(host.Uplink); r.err == nil {
		r.state, r.peers, r.err = p.n.backend.Plan(own, r.records.Peers, host)
	}
	if p.n.BlackholeRoute {
		for _, s := range ipfam.Prefixes(own.Subnet) {
			r.state.Routes = append(r.state.Routes, kernel.Route{Dst: s, Blackhole: true})
		}
	}
	return r
}

// use hands the peers to a backend that moves packets itself.
func (p *passState) use(r *result) {
	if b, ok := p.n.backend.(backend.Runner); ok {
		if err := b.Use(r.own, r.records.Peers, r.host); err != nil {
			r.stats.DeviceErr, r.stats.Broken = errors.Join(r.stats.DeviceErr, err), ipfam.Pair[bool]{true, true}
		}
	}
}

// nodeErr returns what is wrong with this node itself, whatever its peers are.
func (r *result) nodeErr() error {
	if !r.planned {
		return r.err
	}
	return r.stats.DeviceErr
}

// finish publishes what the pass has done.
func (p *passState) finish(r *result) {
	r.peers = append(markFailed(r.peers, r.stats.Failed), leftOut(r.records.Rejected)...)
	p.tellCNI(r)
	p.updateHealth(r)
	p.updateMetrics(r)
	p.logPass(r, r.compare(p.n.last.Load()))
	p.n.last.Store(r)
	if p.n.Passed != nil {
		p.n.Passed(r.peers)
	}
}

// markFailed marks each peer whose entries the kernel refused as unreachable.
func markFailed(peers []backend.PeerStatus, failed map[netip.Prefix]error) []backend.PeerStatus {
	if len(failed) == 0 {
		return peers
	}
	for i, s := range peers {
		if err := failed[s.Subnet]; err != nil && s.How != backend.LeftOut {
			peers[i].How, peers[i].Why = backend.Unreachable, err.Error()
		}
	}
	return peers
}

// leftOut lists rejected leases beside the peers, once per family they name.
func leftOut(rejected []subnet.Rejection) []backend.PeerStatus {
	var out []backend.PeerStatus
	for _, r := range rejected {
		s := backend.PeerStatus{Name: r.Lease.Name, How: backend.LeftOut, Why: r.Err.Error()}
		named := false
		for f, p := range ipfam.Prefixes(r.Lease.Subnet) {
			s.Family, s.Subnet, s.Via = f, p, r.Lease.Attrs.PublicIP[f]
			out, named = append(out, s), true
		}
		if !named {
			out = append(out, s)
		}
	}
	return out
}

func (p *passState) updateHealth(r *result) {
	p.n.checks.device.Set(r.nodeErr())
	p.n.checks.peers.Set(peersProblem(r))
	p.n.checks.firstPass.OK()
}

func (p *passState) updateMetrics(r *result) {
	p.n.Metrics.Pass(r.took, r.stats.Changed(), r.err)
	p.n.Metrics.Leases(r.leases, len(r.records.Rejected), r.kept+r.stats.Held)
	for table, n := range r.stats.Put {
		p.n.Metrics.Table(table, n, 0, 0)
	}
	for table, n := range r.stats.Deleted {
		p.n.Metrics.Table(table, 0, n, 0)
	}
	for table, n := range r.stats.Drift {
		p.n.Metrics.Table(table, 0, 0, n)
	}
	for key, n := range countPeers(r) {
		p.n.Metrics.Peers(key.family, key.state, n)
	}
}
