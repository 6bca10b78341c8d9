package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/internal/loop"
	"flannel/lab"
)

const (
	// fleetDaemons run on this machine, in a cluster of -peers nodes.
	fleetDaemons = 200
	// informers are how many clients with flannel's pattern stand for a fleet:
	// each needs the CPU time and memory of six daemons.
	informers = 20
	// fleetStarts is how many clients are restarted at the same time. When the
	// fleet first starts, which is not measured, it is fleetFirstStarts: whoever
	// runs already hears of a whole batch at once.
	fleetStarts      = 10
	fleetFirstStarts = 50
	// restWindow is how long a fleet is watched while nothing happens: longer than
	// any daemon waits between two requests. Then changes are made during
	// changeWindow, one each changeInterval.
	restWindow     = 65 * time.Second
	changeWindow   = 20 * time.Second
	changeInterval = 100 * time.Millisecond
	// outage is how long the store is away, fleetPatience how long anything may
	// take.
	outage        = 10 * time.Second
	fleetPatience = 10 * time.Minute
	// fleetConfig spares this machine the kernel entries of all daemons, which
	// cost the store nothing.
	fleetConfig = "{" + crowdRange + ", " + onDemandBackend
)

// fleet measures what many daemons cost their store: at rest, while all are
// restarted, and after an outage.
func (b *bench) fleet(ctx context.Context) ([]row, error) {
	if err := b.close(); err != nil {
		return nil, err
	}
	kube, err := b.kubeFleet(ctx)
	if err != nil {
		return kube, fmt.Errorf("with an API server: %w", err)
	}
	etcd, err := b.etcdFleet(ctx)
	if err != nil {
		err = fmt.Errorf("with etcd: %w", err)
	}
	return append(kube, etcd...), err
}

func (b *bench) kubeFleet(ctx context.Context) (rows []row, err error) {
	l, err := lab.New(ctx, lab.Options{Hosts: fleetDaemons, Kubernetes: true, Network: fleetConfig, Binaries: b.kubeBinaries()})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	f := &fleet{server: &kubeFleet{l, b.peers - fleetDaemons}, step: b.progress.step}
	if err := f.prepare(ctx); err != nil {
		return nil, err
	}
	rows, err = f.measure(ctx, "this daemon, API server", b.peers, daemons(l.Hosts))
	if err != nil {
		return rows, err
	}
	pattern, err := f.measure(ctx, "informer on whole Nodes", b.peers, informersOn(l, informers))
	return append(rows, pattern...), err
}

func (b *bench) etcdFleet(ctx context.Context) (rows []row, err error) {
	l, err := lab.New(ctx, lab.Options{Hosts: fleetDaemons, Network: fleetConfig, Binaries: b.binaries})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	store, err := openStore(ctx, l, "vxlan", false)
	if err != nil {
		return nil, err
	}
	f := &fleet{server: &etcdFleet{l, store, b.peers - fleetDaemons}, step: b.progress.step}
	defer func() { err = errors.Join(err, f.server.close()) }()
	if err := f.prepare(ctx); err != nil {
		return nil, err
	}
	return f.measure(ctx, "this daemon, etcd", b.peers, daemons(l.Hosts))
}

// client is one of many that watch a store.
type client interface {
	// start returns when the client has what it needs from the store.
	start(ctx context.Context) error
	stop() error
	// machine is the host that it runs on.
	machine() *lab.Host
}

// daemon is a client: the flanneld of a host.
type daemon struct{ *lab.Host }

func (d daemon) start(ctx context.Context) error {
	if err := d.StartFlanneld(); err != nil {
		return err
	}
	return d.WaitReady(ctx)
}

func (d daemon) stop() error        { return d.Stop() }
func (d daemon) machine() *lab.Host { return d.Host }

func daemons(hosts []*lab.Host) []client {
	out := make([]client, 0, len(hosts))
	for _, h := range hosts {
		out = append(out, daemon{h})
	}
	return out
}

// fleet is a store with many clients.
type fleet struct {
	server fleetServer
	// step is told what happens next.
	step func(what string)
	// alone is what the store costs without clients.
	alone costs
	// updates is how many records the bench itself has changed.
	updates int
}

// cost is what some time has cost a store.
type cost struct {
	took            time.Duration
	requests, bytes float64
	cpu             time.Duration
	// writes is how many records the clients have changed.
	writes float64
}

// costs are what was measured of a store and its clients.
type costs struct {
	// rest is a time in which no record changes, and changes one in which the
	// bench changes some.
	rest, changes cost
	// changed is how many records were changed during changes.
	changed float64
	// restart is that of all clients. After an outage watched is the time until
	// all watch again.
	restart, outage cost
	watched         time.Duration
}

// prepare fills the store and measures it without clients.
func (f *fleet) prepare(ctx context.Context) (err error) {
	f.step("records")
	if err := f.server.fill(ctx); err != nil {
		return err
	}
	f.alone, err = f.costs(ctx, "no clients", nil)
	return err
}

// measure starts clients, measures what they cost, and ends them.
func (f *fleet) measure(ctx context.Context, series string, size int, clients []client) (rows []row, err error) {
	ctx, cancel := context.WithTimeout(ctx, 4*fleetPatience)
	defer cancel()
	defer func() { err = errors.Join(err, each(clients, fleetFirstStarts, client.stop)) }()
	f.step(series + ": start")
	if err := each(clients, fleetFirstStarts, func(c client) error { return c.start(ctx) }); err != nil {
		return nil, err
	}
	c, err := f.costs(ctx, series, clients)
	if err != nil {
		return nil, err
	}
	return c.rows(series, f.alone, float64(len(clients)), float64(size), f.server.interval()), nil
}

// costs measures a store with clients that run.
func (f *fleet) costs(ctx context.Context, series string, clients []client) (c costs, err error) {
	f.step(series + ": at rest")
	watches, err := f.settled(ctx)
	if err != nil {
		return c, err
	}
	c.rest, err = f.during(ctx, clients, func(ctx context.Context) error { return loop.Wait(ctx, restWindow) })
	if err != nil {
		return c, err
	}
	f.step(series + ": changes")
	before := f.updates
	c.changes, err = f.during(ctx, clients, func(ctx context.Context) error {
		f.updates += int(changeWindow / changeInterval)
		if err := paceUpdates(ctx, changeWindow, changeInterval, f.server.update); err != nil {
			return err
		}
		return loop.Wait(ctx, time.Second) // until the last one has arrived
	})
	if err != nil {
		return c, err
	}
	c.changed = float64(f.updates - before)
	f.step(series + ": restart")
	c.restart, err = f.during(ctx, clients, func(ctx context.Context) error {
		if err := each(clients, fleetStarts, func(c client) error { return errors.Join(c.stop(), c.start(ctx)) }); err != nil {
			return err
		}
		return f.watched(ctx, watches)
	})
	if err != nil {
		return c, err
	}
	f.step(series + ": outage")
	c.outage, c.watched, err = f.outage(ctx, clients, watches)
	return c, err
}

// settled waits until no client begins another watch and returns how many there
// are.
func (f *fleet) settled(ctx context.Context) (watches float64, err error) {
	const rest = 3 * time.Second
	last := -1.0
	err = until(ctx, "the same number of watches", rest, func() (bool, error) {
		_, _, now, err := f.server.counters(ctx)
		same := now == last
		last = now
		return same, err
	})
	return last, err
}

// each does something for all clients, for some at the same time.
func each(clients []client, some int, do func(client) error) error {
	var group errgroup.Group
	group.SetLimit(some)
	for _, c := range clients {
		group.Go(func() error { return do(c) })
	}
	return group.Wait()
}

// outage ends the store for a while and measures what it costs from its start
// until all clients watch it again.
func (f *fleet) outage(ctx context.Context, clients []client, watches float64) (c cost, watched time.Duration, err error) {
	if err := f.server.stop(); err != nil {
		return c, 0, err
	}
	if err := loop.Wait(ctx, outage); err != nil {
		return c, 0, err
	}
	before, err := f.usage(ctx, clients, true)
	if err != nil {
		return c, 0, err
	}
	f.updates = 0 // the counters of the store begin again
	start := time.Now()
	if err := f.server.start(ctx); err != nil {
		return c, 0, err
	}
	served := time.Now()
	if err := f.watched(ctx, watches); err != nil {
		return c, 0, err
	}
	watched = time.Since(served)
	// What a store does after its start is part of both measurements, that without
	// clients and that with them.
	if err := loop.Wait(ctx, time.Until(start.Add(2*outage))); err != nil {
		return c, 0, err
	}
	after, err := f.usage(ctx, clients, false)
	if err != nil {
		return c, 0, err
	}
	c = after.since(before)
	c.took = time.Since(start)
	return c, watched, nil
}

// watched waits until the store has as many watches again.
func (f *fleet) watched(ctx context.Context, watches float64) error {
	ctx, cancel := context.WithTimeout(ctx, fleetPatience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		_, _, now, err := f.server.counters(ctx)
		if err == nil && now >= watches {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%.0f of %.0f watches after %s", now, watches, fleetPatience), err)
		}
	}
}

// during measures a time in which the store keeps running.
func (f *fleet) during(ctx context.Context, clients []client, happen func(context.Context) error) (c cost, err error) {
	ctx, cancel := context.WithTimeout(ctx, fleetPatience)
	defer cancel()
	before, err := f.usage(ctx, clients, false)
	if err != nil {
		return c, err
	}
	start := time.Now()
	if err := happen(ctx); err != nil {
		return c, err
	}
	took := time.Since(start)
	after, err := f.usage(ctx, clients, false)
	if err != nil {
		return c, err
	}
	c = after.since(before)
	c.took = took
	return c, nil
}

// usage is what a store has been used for so far.
type usage struct {
	requests, writes, bytes float64
	cpu                     map[process]time.Duration
}

// usage reads the counters. Those of a store that does not run begin at 0.
func (f *fleet) usage(ctx context.Context, clients []client, stopped bool) (u usage, err error) {
	for _, c := range clients {
		link, err := c.machine().Interface(lab.Uplink)
		if err != nil {
			return u, err
		}
		s := link.Attrs().Statistics
		u.bytes += float64(s.RxBytes + s.TxBytes)
	}
	u.cpu = map[process]time.Duration{}
	for _, p := range f.server.programs() {
		// A program that has ended will be another process.
		if used, err := p.cpu(); err == nil {
			u.cpu[p] = used
		} else if !stopped {
			return u, err
		}
	}
	if !stopped {
		u.requests, u.writes, _, err = f.server.counters(ctx)
		u.requests, u.writes = u.requests-float64(f.updates), u.writes-float64(f.updates)
	}
	return u, err
}

func (u usage) since(before usage) cost {
	c := cost{requests: u.requests - before.requests, writes: u.writes - before.writes, bytes: u.bytes - before.bytes}
	for p, used := range u.cpu {
		c.cpu += used - before.cpu[p]
	}
	return c
}

// over returns the cost of another time at the same rate.
func (c cost) over(took time.Duration) cost {
	share := took.Seconds() / c.took.Seconds()
	return cost{took, c.requests * share, c.bytes * share, time.Duration(float64(c.cpu) * share), c.writes * share}
}

// without returns the cost less another one.
func (c cost) without(other cost) cost {
	c.requests -= other.requests
	c.bytes -= other.bytes
	c.cpu -= other.cpu
	c.writes -= other.writes
	return c
}

// event is what it costs to tell one client of one change.
type event struct{ bytes, cpu float64 }

// event divides what changes cost by the changes and by the clients that were
// told of them.
func (c costs) event(alone costs, clients float64) event {
	told := c.changed * clients
	all := c.changes.without(c.rest.over(c.changes.took))
	own := alone.changes.without(alone.rest.over(alone.changes.took))
	return event{all.bytes / told, (all.cpu - own.cpu).Seconds() / told}
}

// fleetTable has what was measured down and the kind of client across.
const fleetTable = "fleet"

// rows are the figures per node, and for a cluster of size nodes in which a record
// changes each interval. What a client asks for grows with the nodes, what the
// others are told of it with their square.
func (c costs) rows(series string, alone costs, clients, size float64, interval time.Duration) []row {
	told := c.event(alone, clients)
	rows := told.rows(series)
	rows = append(rows, c.restRows(series, alone, told, clients, size, interval)...)
	restart := c.restart.without(c.rest.over(c.restart.took))
	rows = append(rows, restart.rows(series, "restart of all daemons", told, clients, size)...)
	after := c.outage.without(alone.outage).without(c.rest.without(alone.rest).over(max(0, c.outage.took-alone.outage.took)))
	rows = append(rows, after.rows(series, "outage of the store", told, clients, size)...)
	watched := fleetRow(series, "outage of the store")
	return append(rows, watched("until all daemons watch again", seconds, c.watched.Seconds()))
}

func (e event) rows(series string) []row {
	one := fleetRow(series, "one change, per node that is told")
	return []row{one("traffic", kilobytes, e.bytes/1e3), one("CPU of the store", milliseconds, 1e3*e.cpu)}
}

func (c costs) restRows(series string, alone costs, told event, clients, size float64, interval time.Duration) []row {
	changes := 1 / interval.Seconds()
	share := 1 / clients / c.rest.took.Seconds()
	bytes := c.rest.bytes*share + changes*told.bytes
	cpu := (c.rest.cpu-alone.rest.over(c.rest.took).cpu).Seconds()*share + changes*told.cpu
	one := fleetRow(series, "at rest, per node")
	all := fleetRow(series, fmt.Sprintf("at rest, all %.0f nodes", size))
	return []row{
		one("requests", hertz, c.rest.requests*share),
		one("traffic", kilobytesPerSecond, bytes/1e3),
		all("requests", hertz, c.rest.requests*share*size),
		all("traffic", megabytesPerSecond, bytes/1e6*size),
		all("CPU of the store", cores, cpu*size),
	}
}

// rows are those of something that happens to each client once.
func (c cost) rows(series, what string, told event, clients, size float64) []row {
	// Each write was told to all clients.
	heard := c.writes * clients
	bytes, cpu := (c.bytes-heard*told.bytes)/clients, (c.cpu.Seconds()-heard*told.cpu)/clients
	heard = c.writes / clients * size * size
	one := fleetRow(series, what+", per node")
	all := fleetRow(series, fmt.Sprintf("%s, all %.0f nodes", what, size))
	return []row{
		one("requests", count, c.requests/clients),
		one("of these changes that all are told of", count, c.writes/clients),
		one("traffic of the node's own requests", megabytes, bytes/1e6),
		one("CPU of the store for them", milliseconds, 1e3*cpu),
		all("requests", count, c.requests/clients*size),
		all("traffic", gigabytes, (bytes*size+heard*told.bytes)/1e9),
		all("CPU of the store", seconds, cpu*size+heard*told.cpu),
	}
}

// fleetRow returns a function that makes a row of one figure.
func fleetRow(series, what string) func(figure string, u unit, v float64) row {
	return func(figure string, u unit, v float64) row {
		x := what + ": " + figure
		return row{Measure: series + ", " + x, Unit: u, Samples: []float64{v}, Mark: &mark{fleetTable, series, x}}
	}
}
