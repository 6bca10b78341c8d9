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

// pass makes the kernel hold what the latest leases say. An error means that it
// was incomplete and is to be repeated.
func (l *passState) pass(ctx context.Context) error {
	snapshot, own := l.snapshot.Load(), l.own.Load()
	host, gone := l.uplink.Current()
	l.checks.uplink.Set(gone)
	if snapshot == nil || own == nil {
		return nil
	}
	started := time.Now()
	l.look(ctx, host.Uplink)
	r := l.plan(*snapshot, *own, host)
	r.at, r.gone = started, gone
	if r.err == nil {
		r.planned = true
		r.stats, r.err = l.kernel.Apply(ctx, r.state, r.hold)
		l.use(&r)
	}
	if ctx.Err() != nil {
		return nil
	}
	r.took = time.Since(started)
	l.finish(&r)
	return r.err
}

// result is what one pass found and did.
type result struct {
	at      time.Time
	own     subnet.Lease
	host    backend.Host
	gone    error // what is wrong with the uplink
	leases  int
	vetted  []subnet.Lease
	refused []subnet.Rejection
	notes   []subnet.Note
	state   kernel.State
	planned bool
	peers   []backend.PeerStatus
	hold    bool // delete nothing
	kept    int
	stats   kernel.Stats
	took    time.Duration
	err     error
}

// plan turns the leases into the wanted state; it does no I/O.
func (l *passState) plan(snapshot subnet.Snapshot, own subnet.Lease, host backend.Host) result {
	leases := l.guard.admit(snapshot, own.Subnet)
	r := result{own: own, host: host, leases: len(snapshot.Leases), kept: len(l.guard.kept)}
	r.hold = snapshot.Held || l.guard.holdDeletions()
	validation := l.validator.Validate(&l.site.vet, &r.own, leases)
	r.vetted, r.refused, r.notes = validation.Peers, validation.Rejected, validation.Notes
	l.filterNodes(own, validation)
	if r.err = l.needs.CheckUplink(host.Uplink); r.err == nil {
		r.state, r.peers, r.err = l.backend.Plan(own, r.vetted, host)
	}
	if l.BlackholeRoute {
		for _, p := range ipfam.Prefixes(own.Subnet) {
			r.state.Routes = append(r.state.Routes, kernel.Route{Dst: p, Blackhole: true})
		}
	}
	return r
}

// use hands the peers to a backend that moves packets itself.
func (l *passState) use(r *result) {
	if b, ok := l.backend.(backend.Runner); ok {
		if err := b.Use(r.own, r.vetted, r.host); err != nil {
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
func (l *passState) finish(r *result) {
	r.peers = append(markFailed(r.peers, r.stats.Failed), leftOut(r.refused)...)
	l.writeSubnetFile(r)
	l.updateHealth(r)
	l.updateMetrics(r)
	l.report.pass(r)
	l.last.Store(r)
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

// leftOut lists refused leases beside the peers, once per family they name.
func leftOut(refused []subnet.Rejection) []backend.PeerStatus {
	var out []backend.PeerStatus
	for _, r := range refused {
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

func (l *passState) updateHealth(r *result) {
	l.checks.device.Set(r.nodeErr())
	l.checks.peers.Set(peersProblem(r))
	l.checks.firstPass.OK()
}

func (l *passState) updateMetrics(r *result) {
	l.Metrics.Pass(r.took, r.stats.Changed(), r.err)
	l.Metrics.Leases(r.leases, len(r.refused), r.kept+r.stats.Held)
	for table, n := range r.stats.Put {
		l.Metrics.Table(table, n, 0, 0)
	}
	for table, n := range r.stats.Deleted {
		l.Metrics.Table(table, 0, n, 0)
	}
	for table, n := range r.stats.Drift {
		l.Metrics.Table(table, 0, 0, n)
	}
	for key, n := range countPeers(r) {
		l.Metrics.Peers(key.family, key.state, n)
	}
}
