// Package monitoring tests what Prometheus and Grafana read of this repository,
// with Prometheus' own engine. It is a module of its own: what they need is
// needed by nothing else.
package monitoring
