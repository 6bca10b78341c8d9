package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// The daemon's own numbers that the bench looks at.
const (
	passSum   = "flannel_pass_duration_seconds_sum"
	passCount = "flannel_pass_duration_seconds_count"
	changes   = "flannel_kernel_changes_total"
)

// numbers are what /metrics shows, by name with labels.
type numbers map[string]float64

func (c *crowd) metrics(ctx context.Context) (numbers, error) {
	code, text, err := c.host.Flanneld().Get(ctx, "/metrics")
	if err != nil || code != http.StatusOK {
		return nil, fmt.Errorf("read the daemon's metrics: code %d: %w", code, err)
	}
	return parseNumbers(text), nil
}

// parseNumbers reads Prometheus' text format; no label here has a blank.
func parseNumbers(text string) numbers {
	n := numbers{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || name == "#" {
			continue
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			n[name] = v
		}
	}
	return n
}

// total adds up a number over all its labels, or over those keys that contain all the texts.
func (n numbers) total(name string, labels ...string) float64 {
	sum := 0.0
	for key, v := range n {
		if key != name && !strings.HasPrefix(key, name+"{") {
			continue
		}
		if slices.ContainsFunc(labels, func(label string) bool { return !strings.Contains(key, label) }) {
			continue
		}
		sum += v
	}
	return sum
}
