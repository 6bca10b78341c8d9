package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"golang.org/x/perf/benchmath"
)

// difference is a row of both results.
type difference struct {
	name     string
	old, new string
	// delta is how much the median differs, how is how certain that is.
	delta, how string
}

// comparison is what differs between two results.
type comparison struct {
	worse, better []difference
	// unjudged differ, but have too few samples to tell that from noise.
	unjudged []difference
	// same is how many rows do not differ by more than the noise.
	same int
	// alone are the names of rows that only one of the results has.
	alone []string
	// others is what else is not the same: the machine, the kernel.
	others []string
}

// compare tests the rows of both results by the test of Mann and Whitney, as
// benchstat does.
func compare(before, after results) comparison {
	var c comparison
	if a, b := before.About, after.About; a.Machine != b.Machine || a.Kernel != b.Kernel {
		c.others = []string{a.Machine + ", Linux " + a.Kernel, b.Machine + ", Linux " + b.Kernel}
	}
	old := map[string]row{}
	for _, r := range before.Rows {
		old[r.Name] = r
	}
	for _, r := range after.Rows {
		o, both := old[r.Name]
		if !both || len(o.Samples) == 0 || len(r.Samples) == 0 {
			c.alone = append(c.alone, r.Name)
		} else {
			c.test(o, r)
		}
		delete(old, r.Name)
	}
	for _, r := range before.Rows {
		if _, left := old[r.Name]; left {
			c.alone = append(c.alone, r.Name)
		}
	}
	return c
}

func (c *comparison) test(old, new row) {
	sample := func(r row) *benchmath.Sample {
		return benchmath.NewSample(slices.Clone(r.Samples), &benchmath.DefaultThresholds)
	}
	result := benchmath.AssumeNothing.Compare(sample(old), sample(new))
	was, is := median(old.Samples), median(new.Samples)
	text := texts(new.Unit, was, is)
	d := difference{new.Name, text[0], text[1], result.FormatDelta(was, is), result.String()}
	few := len(result.Warnings) > 0 && min(result.N1, result.N2) < enough
	switch {
	case was == is:
		c.same++
	case result.P <= result.Alpha && is > was == new.Higher:
		c.better = append(c.better, d)
	case result.P <= result.Alpha:
		c.worse = append(c.worse, d)
	case few:
		// Without a p, which means nothing here.
		d.delta = benchmath.Comparison{Alpha: 1}.FormatDelta(was, is)
		d.how = benchmath.Comparison{N1: result.N1, N2: result.N2}.String()
		c.unjudged = append(c.unjudged, d)
	default:
		c.same++
	}
}

// enough is how many samples a row must have to be tested.
const enough = 4

// write names what is worse first.
func (c comparison) write(w io.Writer) error {
	if len(c.others) > 0 {
		fmt.Fprintf(w, "Not the same machine; only ratios mean something.\n  old: %s\n  new: %s\n\n", c.others[0], c.others[1])
	}
	fmt.Fprintf(w, "%d worse, %d better, %d not different by more than the noise, %d with fewer than %d samples, %d in one file only.\n",
		len(c.worse), len(c.better), c.same, len(c.unjudged), enough, len(c.alone))
	tested := len(c.worse) + len(c.better) + c.same
	fmt.Fprintf(w, "Of %d tested rows, about %.0f look different by chance (p <= %v).\n",
		tested, float64(tested)*benchmath.DefaultThresholds.CompareAlpha, benchmath.DefaultThresholds.CompareAlpha)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, part := range []struct {
		title string
		rows  []difference
	}{{"WORSE", c.worse}, {"BETTER", c.better}, {"TOO FEW SAMPLES", c.unjudged}} {
		if len(part.rows) == 0 {
			continue
		}
		fmt.Fprintf(t, "\n%s\tOLD\tNEW\tDELTA\t\n", part.title)
		for _, d := range part.rows {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", d.name, d.old, d.new, d.delta, d.how)
		}
	}
	if len(c.alone) > 0 {
		fmt.Fprintln(t, "\nIN ONE FILE ONLY")
		for _, name := range c.alone {
			fmt.Fprintln(t, name)
		}
	}
	return t.Flush()
}
