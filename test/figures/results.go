package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"golang.org/x/perf/benchunit"
)

// results are what test/bench writes. The fields are explained there.
type results struct {
	About struct {
		Machine  string            `json:"machine"`
		Kernel   string            `json:"kernel"`
		Commit   string            `json:"commit"`
		Flanneld string            `json:"flanneld"`
		Versions map[string]string `json:"versions"`
		Date     string            `json:"date"`
		Load     float64           `json:"load"`
		Seconds  float64           `json:"seconds"`
	} `json:"about"`
	Rows []row `json:"rows"`
}

type row struct {
	Name    string    `json:"name"`
	Samples []float64 `json:"samples"`
	Unit    string    `json:"unit"`
	Higher  bool      `json:"higher"`
	Limit   *float64  `json:"limit"`
	Flannel string    `json:"flannel"`
	Mark    struct {
		Figure string `json:"figure"`
		Series string `json:"series"`
		X      string `json:"x"`
	} `json:"mark"`
}

func readResults(path string) (r results, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("read results %s: %w", path, err)
	}
	if len(r.Rows) == 0 {
		return r, fmt.Errorf("read results %s: there are none", path)
	}
	return r, nil
}

// units is which unit without a prefix stands behind those of rows.
var units = map[string]struct {
	name   string
	factor float64
}{
	"s": {"s", 1}, "ms": {"s", 1e-3}, "MB": {"B", 1e6}, "kB": {"B", 1e3}, "Gbit/s": {"bit/s", 1e9}, "": {"", 1},
}

// texts writes values of a unit with the same number of digits.
func texts(unit string, values ...float64) []string {
	base, scales := units[unit]
	if !scales {
		return plain(unit, values)
	}
	scaled := slices.Clone(values)
	for i := range scaled {
		scaled[i] *= base.factor
	}
	scaler := benchunit.CommonScale(scaled, benchunit.Decimal)
	scaler.Prec = max(scaler.Prec-1, 0) // three digits are enough
	out := make([]string, len(scaled))
	for i, v := range scaled {
		if v == 0 {
			out[i] = "0"
			continue
		}
		out[i] = scaler.Format(v) + base.name
	}
	return out
}

// plain writes values whose unit has no prefixes: a ratio or a percentage.
func plain(unit string, values []float64) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = fmt.Sprintf("%.3g%s", v, unit)
	}
	return out
}

// median returns the middle of the values, 0 when there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
