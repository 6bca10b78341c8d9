package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/internal/wait"
	"flannel/lab"
)

const (
	// fleetDaemons run on this machine, in a cluster of -peers nodes.
	fleetDaemons = 200
	// informers are how many clients with flannel's pattern stand for a fleet:
	// each needs the CPU time and memory of six daemons.
	informers = 20
	// fleetStarts is how many clients are started at the same time.
	fleetStarts = 10
	// restWindow is how long a fleet is watched at rest, outage how long the
	// store is away, fleetPatience how long anything may take.
	restWindow    = 30 * time.Second
	outage        = 10 * time.Second
	fleetPatience = 10 * time.Minute
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
	l, err := lab.New(ctx, lab.Options{Hosts: fleetDaemons, Kubernetes: true, Network: crowdConfig, Binaries: b.kubeBinaries()})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	f := &fleet{server: &kubeFleet{l, b.peers - fleetDaemons}}
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
	l, err := lab.New(ctx, lab.Options{Hosts: fleetDaemons, Network: crowdConfig, Binaries: b.binaries})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	store, err := openStore(ctx, l, "vxlan", false)
	if err != nil {
		return nil, err
	}
	f := &fleet{server: &etcdFleet{l, store, b.peers - fleetDaemons}}
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
	// alone is what the store costs without clients.
	alone struct{ rest, outage cost }
}

// cost is what some time has cost a store.
type cost struct {
	took            time.Duration
	requests, bytes float64
	cpu             time.Duration
}

// prepare fills the store and measures it without clients.
func (f *fleet) prepare(ctx context.Context) error {
	if err := f.server.fill(ctx); err != nil {
		return err
	}
	var err error
	if f.alone.rest, err = f.rest(ctx, nil); err != nil {
		return err
	}
	f.alone.outage, err = f.outage(ctx, nil)
	return err
}

// measure starts clients, measures what they cost, and ends them.
func (f *fleet) measure(ctx context.Context, series string, size int, clients []client) (rows []row, err error) {
	ctx, cancel := context.WithTimeout(ctx, 4*fleetPatience)
	defer cancel()
	defer func() { err = errors.Join(err, each(clients, client.stop)) }()
	start := func(c client) error { return c.start(ctx) }
	if err := each(clients, start); err != nil {
		return nil, err
	}
	rest, err := f.rest(ctx, clients)
	if err != nil {
		return nil, err
	}
	restart, err := f.during(ctx, clients, func(ctx context.Context) error {
		return each(clients, func(c client) error { return errors.Join(c.stop(), c.start(ctx)) })
	})
	if err != nil {
		return nil, err
	}
	after, err := f.outage(ctx, clients)
	if err != nil {
		return nil, err
	}
	n := float64(len(clients))
	rows = rest.without(f.alone.rest).perSecond(series, "at rest", n, size)
	rows = append(rows, restart.perClient(series, "restart of the daemon", n, size)...)
	rows = append(rows, after.without(f.alone.outage).perClient(series, "outage of the store", n, size)...)
	watched := fleetRow(series, "outage of the store")
	return append(rows, watched("until all daemons watch again", seconds, after.took.Seconds())), nil
}

// each does something for all clients, some at the same time.
func each(clients []client, do func(client) error) error {
	var group errgroup.Group
	group.SetLimit(fleetStarts)
	for _, c := range clients {
		group.Go(func() error { return do(c) })
	}
	return group.Wait()
}

// rest measures a time in which records are updated and nothing else happens.
func (f *fleet) rest(ctx context.Context, clients []client) (cost, error) {
	return f.during(ctx, clients, func(ctx context.Context) error {
		end := time.Now().Add(restWindow)
		if err := paceUpdates(ctx, restWindow, f.server.interval(), f.server.update); err != nil {
			return err
		}
		return wait.For(ctx, time.Until(end))
	})
}

// outage ends the store for a while and measures what it costs from its start
// until all clients watch it again.
func (f *fleet) outage(ctx context.Context, clients []client) (c cost, err error) {
	_, watches, err := f.server.counters(ctx)
	if err != nil {
		return c, err
	}
	if err := f.server.stop(); err != nil {
		return c, err
	}
	if err := wait.For(ctx, outage); err != nil {
		return c, err
	}
	before, err := f.usage(ctx, clients, true)
	if err != nil {
		return c, err
	}
	start := time.Now()
	if err := f.server.start(ctx); err != nil {
		return c, err
	}
	served := time.Now()
	if err := f.watched(ctx, watches); err != nil {
		return c, err
	}
	c.took = time.Since(served)
	// A store without clients is measured as long as one with them takes.
	if err := wait.For(ctx, time.Until(start.Add(outage))); err != nil {
		return c, err
	}
	after, err := f.usage(ctx, clients, false)
	if err != nil {
		return c, err
	}
	took := c.took
	c = after.since(before)
	c.took = took
	return c, nil
}

// watched waits until the store has as many watches again.
func (f *fleet) watched(ctx context.Context, watches float64) error {
	ctx, cancel := context.WithTimeout(ctx, fleetPatience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		_, now, err := f.server.counters(ctx)
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

// during measures a time in which the store goes on running.
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
	requests, bytes float64
	cpu             map[process]time.Duration
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
		u.requests, _, err = f.server.counters(ctx)
	}
	return u, err
}

func (u usage) since(before usage) cost {
	c := cost{requests: u.requests - before.requests, bytes: u.bytes - before.bytes}
	for p, used := range u.cpu {
		c.cpu += used - before.cpu[p]
	}
	return c
}

// without returns what a store with clients costs beyond one without.
func (c cost) without(alone cost) cost {
	c.requests -= alone.requests
	c.cpu -= alone.cpu
	return c
}

// fleetTable has what was measured down and the kind of client across.
const fleetTable = "fleet"

// perSecond are the rows of a time that goes on, for one client and for as many
// as the cluster has nodes.
func (c cost) perSecond(series, what string, clients float64, size int) []row {
	share := 1 / clients / c.took.Seconds()
	one := fleetRow(series, what+", per node")
	all := fleetRow(series, fmt.Sprintf("%s, all %d nodes", what, size))
	return []row{
		one("traffic", kilobytesPerSecond, c.bytes/1e3*share),
		one("requests", hertz, c.requests*share),
		all("traffic", megabytesPerSecond, c.bytes/1e6*share*float64(size)),
		all("CPU of the store", cores, c.cpu.Seconds()*share*float64(size)),
	}
}

// perClient are the rows of something that happens to each client once.
func (c cost) perClient(series, what string, clients float64, size int) []row {
	one := fleetRow(series, what+", per node")
	all := fleetRow(series, fmt.Sprintf("%s, all %d nodes", what, size))
	return []row{
		one("traffic", megabytes, c.bytes/1e6/clients),
		one("requests", count, c.requests/clients),
		one("CPU of the store", milliseconds, inMilliseconds(c.cpu)/clients),
		all("traffic", gigabytes, c.bytes/1e9/clients*float64(size)),
		all("CPU of the store", seconds, c.cpu.Seconds()/clients*float64(size)),
	}
}

// fleetRow returns a function that makes a row of one figure.
func fleetRow(series, what string) func(figure string, u unit, v float64) row {
	return func(figure string, u unit, v float64) row {
		x := what + ": " + figure
		return row{Measure: series + ", " + x, Unit: u, Samples: []float64{v}, Mark: &mark{fleetTable, series, x}}
	}
}
