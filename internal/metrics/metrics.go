// Package metrics holds the numbers that the daemon shows to Prometheus. None
// of them carries an address or a name of a node.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are the daemon's own numbers.
type Metrics struct {
	registry *prometheus.Registry

	leases      prometheus.Gauge
	peers       *prometheus.GaugeVec
	refused     prometheus.Gauge
	held        prometheus.Gauge
	passes      *prometheus.CounterVec
	passSeconds prometheus.Histogram
	changes     *prometheus.CounterVec
	drift       *prometheus.CounterVec
	errors      *prometheus.CounterVec
	lastSuccess prometheus.Gauge
	storeUp     prometheus.Gauge
	roundTrips  prometheus.Histogram
	probesLost  prometheus.Counter
	probedPeers *prometheus.GaugeVec
}

// New returns metrics in a registry of their own, with those of the Go runtime
// and of the process beside them.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		leases:   gauge("flannel_leases", "Leases in the latest snapshot of the store, this node's included."),
		peers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "flannel_peers", Help: "Peers by family and by how they are reached: tunnel, direct, unreachable, left out.",
		}, []string{"family", "state"}),
		refused: gauge("flannel_leases_refused", "Leases in the latest snapshot whose record is wrong or collides with an older lease."),
		held:    gauge("flannel_deletions_held", "Stale entries that are kept until two lists of the store agree."),
		passes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flannel_passes_total", Help: "Passes over the kernel's state, by result: unchanged, changed, failed.",
		}, []string{"result"}),
		passSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "flannel_pass_duration_seconds", Help: "Time of one pass.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flannel_kernel_changes_total", Help: "Entries written to the kernel, by table and operation: put, delete.",
		}, []string{"table", "operation"}),
		drift: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flannel_kernel_drift_total", Help: "Entries that somebody else had changed or removed and that were restored, by table.",
		}, []string{"table"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flannel_errors_total", Help: "Errors by what was being done: pass, rules, store, subnet-file, cni-conf, health-port, socket.",
		}, []string{"what"}),
		lastSuccess: gauge("flannel_last_success_timestamp_seconds", "When the last pass without an error ended, in seconds since 1970."),
		storeUp:     gauge("flannel_store_reachable", "1 while the store of leases answers, else 0."),
		roundTrips: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "flannel_probe_round_trip_seconds", Help: "Time from a probe of a peer to its answer.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}),
		probesLost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flannel_probes_lost_total", Help: "Probes of peers that were not answered within a second.",
		}),
		probedPeers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "flannel_probed_peers", Help: "Peers by what probes have shown about the path to them: fine, broken, silent, unknown.",
		}, []string{"verdict"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "flannel_build_info", Help: "Always 1; the label is the version that runs.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(m.leases, m.peers, m.refused, m.held, m.passes, m.passSeconds, m.changes, m.drift,
		m.errors, m.lastSuccess, m.storeUp, m.roundTrips, m.probesLost, m.probedPeers, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

// Handler serves the metrics in Prometheus' text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Counter shows a number that somebody else counts.
func (m *Metrics) Counter(name, help string, value func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value))
}

// Packets adds a counter of packets that a backend notes for a reason.
func (m *Metrics) Packets(why string, value func() uint64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name:        "flannel_packets_noted_total",
		Help:        "Packets that did not simply pass through the daemon, by reason.",
		ConstLabels: prometheus.Labels{"why": why},
	}, func() float64 { return float64(value()) }))
}

// Leases reports how many leases the latest snapshot has, how many of them are
// refused, and how many stale entries are kept.
func (m *Metrics) Leases(all, refused, held int) {
	m.leases.Set(float64(all))
	m.refused.Set(float64(refused))
	m.held.Set(float64(held))
}

// Peers reports how many peers of a family are in a state.
func (m *Metrics) Peers(family, state string, n int) {
	m.peers.WithLabelValues(family, state).Set(float64(n))
}

// Pass reports the end of a pass.
func (m *Metrics) Pass(took time.Duration, changed int, err error) {
	result := "unchanged"
	switch {
	case err != nil:
		result = "failed"
		m.errors.WithLabelValues("pass").Inc()
	case changed > 0:
		result = "changed"
	}
	m.passes.WithLabelValues(result).Inc()
	m.passSeconds.Observe(took.Seconds())
	if err == nil {
		m.lastSuccess.SetToCurrentTime()
	}
}

// Table reports what a pass wrote to one table.
func (m *Metrics) Table(table string, put, deleted, drift int) {
	m.changes.WithLabelValues(table, "put").Add(float64(put))
	m.changes.WithLabelValues(table, "delete").Add(float64(deleted))
	m.drift.WithLabelValues(table).Add(float64(drift))
}

// ProbeAnswered reports the round trip of a probe.
func (m *Metrics) ProbeAnswered(roundTrip time.Duration) { m.roundTrips.Observe(roundTrip.Seconds()) }

// ProbesLost reports how many probes more were not answered.
func (m *Metrics) ProbesLost(n int) { m.probesLost.Add(float64(n)) }

// ProbedPeers reports how many peers have a verdict.
func (m *Metrics) ProbedPeers(verdict string, n int) {
	m.probedPeers.WithLabelValues(verdict).Set(float64(n))
}

// Error counts an error by what was being done.
func (m *Metrics) Error(what string) { m.errors.WithLabelValues(what).Inc() }

// Store reports whether the store of leases answers.
func (m *Metrics) Store(up bool) {
	m.storeUp.Set(0)
	if up {
		m.storeUp.Set(1)
	}
}
