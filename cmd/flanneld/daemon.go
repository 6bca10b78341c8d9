package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/internal/health"
	"flannel/internal/ipfam"
	"flannel/internal/loop"
	"flannel/internal/metrics"
	"flannel/internal/sdnotify"
	"flannel/internal/statedir"
	"flannel/internal/version"
	"flannel/kernel"
	"flannel/kernel/podbridge"
	"flannel/network"
	"flannel/network/uplink"
	"flannel/probe"
	"flannel/subnet/env"
)

// daemon is the whole program, built from its flags.
type daemon struct {
	options *options
	log     *slog.Logger
	metrics *metrics.Metrics
	health  *health.Registry
	store   *health.Check
	record  *health.Check
	// waiting reports what of the configuration is missing or wrong.
	waiting *health.Check
	rules   *health.Check
	// dropped reports what on this host drops packets of pods.
	dropped  *health.Check
	settings *settings
	// instance passes once no other daemon runs as the same instance.
	instance *health.Check
	lockDir  string
	// state is what is known over restarts; nil keeps nothing.
	state *statedir.Dir
	// storeAway is whether the store of leases cannot be reached.
	storeAway atomic.Bool
	network   *network.Network
	// prober is nil with --probe=false.
	prober *probe.Prober
	notify *notifier
	events *events
	// startOverFrom is when the daemon may be built again at the earliest.
	startOverFrom time.Time
	// closers close what was opened while the daemon ran.
	closers []io.Closer
	// background runs beside the network for as long as the daemon runs.
	background []func(context.Context) error
}

// newDaemon builds everything and starts nothing.
func newDaemon(o *options, log *slog.Logger, getenv func(string) string) (*daemon, error) {
	d := &daemon{options: o, log: log, metrics: metrics.New(version.String()), lockDir: kernel.LockDir}
	// Two daemons that share a folder have two subnet files.
	d.state = statedir.Open(log, o.stateDir, statedir.Fallback, o.instance(), o.subnetFile)
	d.notify = &notifier{log: log, sd: sdnotify.New(getenv), changed: loop.NewSignal()}
	d.events = &events{log: log, changed: loop.NewSignal()}
	d.health = health.New(func() {
		d.notify.changed.Send()
		d.events.changed.Send()
	})
	d.notify.health, d.events.health = d.health, d.health
	d.store = d.health.Note("store", "")
	d.waiting = d.health.Note("waiting for", "")
	d.record = d.health.Note("own record", "")
	d.instance = d.health.Require("instance", "not locked yet")
	d.storeReachable(nil) // until a request fails
	d.rules = d.health.Require("rules", "not written yet")
	d.dropped = d.health.Note("forwarding", "PacketsDropped")
	d.settings = newSettings(log, d.health)
	manager, err := d.newManager(getenv)
	if err != nil {
		return nil, err
	}
	options := network.Options{
		Log:       log,
		Manager:   manager,
		NewUplink: d.newUplink,
		NewKernel: d.newKernel,
		NewFilter: d.newFilter,
		DeviceMAC: kernel.DeviceMAC,
		TUNName:   func(prefix string) string { return kernel.TUNName(prefix, o.instance()) },
		ReaddressBridge: func(name string, e env.Env) ([]netip.Prefix, error) {
			return podbridge.Readdress(name, e.Network, e.Subnet)
		},
		Backends:       backends(),
		Health:         d.health,
		Metrics:        d.metrics,
		SubnetFile:     o.subnetFile,
		IPMasq:         o.ipMasq,
		State:          d.state,
		BlackholeRoute: o.ipBlackholeRoute,

		SubnetFileWritten: d.cniConfInstaller(),
	}
	if o.probe {
		d.prober = probe.New(probe.Options{Log: log, Metrics: d.metrics, Report: d.health.Note("overlay", "OverlayBroken").Fail, Loop: d.health.AddLoop("probes")})
		options.Passed, options.Probed = d.prober.SetPeers, d.prober.Probed
		d.background = append(d.background, d.prober.Run)
	}
	d.network = network.New(options)
	return d, nil
}

// run blocks until ctx ends or something ends that waiting does not help. It is
// called once.
func (d *daemon) run(ctx context.Context) error {
	defer d.close()
	d.log.Info("flanneld starts", "version", version.String())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.notify.run(ctx) })
	for _, s := range d.servers() {
		group.Go(func() error { return s.Run(ctx) })
	}
	if d.events.post != nil {
		group.Go(func() error { return d.events.run(ctx) })
	}
	group.Go(func() error { return d.settings.run(ctx) })
	for _, run := range d.background {
		group.Go(func() error { return run(ctx) })
	}
	group.Go(func() error {
		lock, err := d.lock(ctx)
		if err != nil {
			return err
		}
		defer lock.Close()
		d.withdrawCNIConf()
		return d.network.Run(ctx)
	})
	return group.Wait()
}

func (d *daemon) close() {
	for _, c := range d.closers {
		_ = c.Close() // nothing more is written to it
	}
}

// storeReachable notes whether the store of leases answers.
func (d *daemon) storeReachable(err error) {
	d.storeAway.Store(err != nil)
	d.metrics.Store(err == nil)
	d.set(d.store, "store", err)
}

// recordConflict notes whether others change this node's record.
func (d *daemon) recordConflict(err error) {
	if err != nil {
		err = errors.New("is changed again and again, perhaps by a node with the same public address; the log says more")
	}
	d.set(d.record, "own-record", err)
}

// set sets a check, and counts its failures under a reason.
func (d *daemon) set(c *health.Check, reason string, err error) {
	if err != nil {
		d.metrics.Error(reason)
	}
	c.Set(err)
}

// newUplink follows the uplink that the flags choose.
func (d *daemon) newUplink(families ipfam.Pair[bool], overrides ipfam.Pair[netip.Addr], onLinkRoutes bool) (network.Uplink, error) {
	o, err := d.options.uplink.Options(families)
	if err != nil {
		return nil, err
	}
	for f, a := range ipfam.Addrs(overrides) {
		o.Public[f] = a
	}
	return uplink.NewWatcher(uplink.Config{Options: o, Log: d.log, TrackLinks: onLinkRoutes}), nil
}

// newKernel opens the kernel's tables.
func (d *daemon) newKernel(scope kernel.Scope) (network.Kernel, error) {
	scope.Instance = d.options.instance()
	o := kernel.Options{Log: d.log, Scope: scope, LockDir: d.lockDir}
	if d.prober != nil {
		o.Installed = d.prober.Touch
	}
	k, err := kernel.New(o)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, k)
	counter := func(name, help string, value func(kernel.Counters) uint64) {
		d.metrics.Counter(name, help, func() float64 { return float64(value(k.Counters())) })
	}
	counter("flannel_misses_answered_total", "Times the kernel asked for an address and got an answer.",
		func(c kernel.Counters) uint64 { return c.MissesAnswered })
	counter("flannel_misses_unknown_total", "Times the kernel asked for an address that no lease has.",
		func(c kernel.Counters) uint64 { return c.MissesUnknown })
	counter("flannel_event_overruns_total", "Times events of the kernel were lost; each led to a full pass.",
		func(c kernel.Counters) uint64 { return c.Overruns })
	counter("flannel_tampering_total", "Events that showed a foreign change to our entries.",
		func(c kernel.Counters) uint64 { return c.Tampering })
	return k, nil
}
