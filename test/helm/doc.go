// Package helm pins the helm that renders the chart in tests. It is a module of
// its own: what helm needs is needed by nothing else.
package helm
