package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// unit is what a figure is measured in.
type unit string

const (
	seconds      unit = "s"
	milliseconds unit = "ms"
	megabytes    unit = "MB"
	kilobytes    unit = "kB"
	percent      unit = "%"
	gigabits     unit = "Gbit/s"
	times        unit = "x"
	count        unit = ""

	gigabytes          unit = "GB"
	kilobytesPerSecond unit = "kB/s"
	megabytesPerSecond unit = "MB/s"
	hertz              unit = "/s"
	cores              unit = "cores"
)

// text writes a figure with as many digits as its unit deserves.
func (u unit) text(v float64) string {
	digits := map[unit]int{seconds: 2, milliseconds: 2, megabytes: 1, kilobytes: 1, percent: 3, gigabits: 2, times: 2, count: 0,
		gigabytes: 1, kilobytesPerSecond: 2, megabytesPerSecond: 1, hertz: 3, cores: 2}[u]
	if u == seconds && v < 0.1 {
		digits++
	}
	text := fmt.Sprintf("%.*f", digits, v)
	if u == count {
		return text
	}
	return text + " " + string(u)
}

// row is one line of the report.
type row struct {
	Measure string `json:"-"`
	// Samples has one figure per round; their median is the result.
	Samples []float64 `json:"samples"`
	Unit    unit      `json:"unit"`
	// Higher means that higher figures are better.
	Higher bool `json:"higher,omitempty"`
	// Limit is the most that is allowed, or the least where higher is better;
	// nil means that the row only explains another one.
	Limit *float64 `json:"limit,omitempty"`
	// Flannel is what flannel v0.28.9 needs on a machine of this kind.
	Flannel string `json:"flannel,omitempty"`
	// Mark is where in a picture the row is.
	Mark *mark `json:"mark,omitempty"`
}

// mark is a place in a picture.
type mark struct {
	Figure string `json:"figure"`
	Series string `json:"series"`
	X      string `json:"x"`
}

// atMost and atLeast are limits; atLeast is for rows in which higher is better.
func atMost(v float64) *float64 { return &v }

func atLeast(v float64) *float64 { return &v }

// verdict returns whether the median keeps the limit.
func (r row) verdict() string {
	switch {
	case r.Limit == nil:
		return ""
	case len(r.Samples) == 0:
		return "not measured"
	case r.Higher && median(r.Samples) < *r.Limit:
		return "UNDER"
	case !r.Higher && median(r.Samples) > *r.Limit:
		return "OVER"
	}
	return "ok"
}

// report is what a run has found out.
type report struct {
	about about
	rows  []row
}

// text writes a table.
func (r report) text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "MEASURE\tMEDIAN\tRANGE\tLIMIT\tFLANNEL\tVERDICT")
	for _, row := range r.rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n",
			row.Measure, row.median(), row.spread(), row.limit(), dash(row.Flannel), row.verdict())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\nDocumentation/performance.md explains how.\n", r.about)
	return err
}

func (r row) median() string {
	if len(r.Samples) == 0 {
		return "-"
	}
	return r.Unit.text(median(r.Samples))
}

func (r row) spread() string {
	if len(r.Samples) < 2 {
		return "-"
	}
	return r.Unit.text(slices.Min(r.Samples)) + " .. " + r.Unit.text(slices.Max(r.Samples))
}

func (r row) limit() string {
	if r.Limit == nil {
		return "-"
	}
	if r.Higher {
		return "at least " + r.Unit.text(*r.Limit)
	}
	return r.Unit.text(*r.Limit)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
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

// inSeconds and inMilliseconds make figures of times.
func inSeconds(d time.Duration) float64 { return d.Seconds() }

func inMilliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
