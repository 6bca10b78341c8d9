package main

import (
	"fmt"
	"slices"
	"strings"
)

// pictures are what test/figures makes of the results; those of ratios are
// above the other ones.
var pictures = []struct {
	name, text string
	ratio      bool
}{
	{"throughput", "Throughput, datagrams and requests of each backend beside a bare veth pair", true},
	{"joining", "Time of a join against the number of peers, beside the bare loop", false},
	{"memory", "Peak memory of a join against the number of peers", false},
	{"further", "Latency of a further peer against the number of peers", false},
	{"silence", "Longest silence for each fault", false},
}

// markdown writes the section of a page: the machine, the ratios, which depend
// on it least, and the figures.
func (r report) markdown() string {
	var b strings.Builder
	if series := r.series(fleetTable); len(series) > 0 {
		fmt.Fprintf(&b, "\n%s\n\n", r.about)
		r.crossTable(&b, fleetTable, series)
		b.WriteString("\n")
		return b.String()
	}
	fmt.Fprintf(&b, "\n%s\n\n### Ratios\n\n", r.about)
	r.picturesAndTable(&b, true)
	b.WriteString("\n### Figures of this machine\n\n")
	r.picturesAndTable(&b, false)
	b.WriteString("\n")
	return b.String()
}

func (r report) picturesAndTable(b *strings.Builder, ratios bool) {
	for _, p := range pictures {
		drawn := slices.ContainsFunc(r.rows, func(row row) bool { return row.Mark != nil && row.Mark.Figure == p.name })
		if p.ratio == ratios && drawn {
			fmt.Fprintf(b, "![%s](performance/%s.svg)\n\n", p.text, p.name)
		}
	}
	b.WriteString("| measure | median | range | limit | flannel v0.28.9 |\n|---|---|---|---|---|\n")
	for _, n := range r.named() {
		if (n.Unit == times) == ratios && n.matters() {
			fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", n.Name, n.bold(), n.spread(), n.limit(), dash(n.Flannel))
		}
	}
}

// matters reports whether a row belongs on a page: not those that only explain
// another one.
func (r row) matters() bool {
	explains := strings.HasPrefix(r.Measure, "  ")
	return !explains || r.Limit != nil || r.Flannel != "" || r.Mark != nil || r.Unit == times
}

// bold returns the median, in bold where it does not keep its limit.
func (r row) bold() string {
	if v := r.verdict(); v == "" || v == "ok" {
		return r.median()
	}
	return "**" + r.median() + "**"
}

// series returns those of a figure, in the order of the rows.
func (r report) series(figure string) (out []string) {
	for _, row := range r.rows {
		if row.Mark != nil && row.Mark.Figure == figure && !slices.Contains(out, row.Mark.Series) {
			out = append(out, row.Mark.Series)
		}
	}
	return out
}

// crossTable writes a figure as a table with a column for each series.
func (r report) crossTable(b *strings.Builder, figure string, series []string) {
	fmt.Fprintf(b, "| | %s |\n|---%s|\n", strings.Join(series, " | "), strings.Repeat("|---", len(series)))
	cells := map[mark]string{}
	var lines []string
	for _, row := range r.rows {
		if row.Mark == nil || row.Mark.Figure != figure {
			continue
		}
		cells[*row.Mark] = row.median()
		if !slices.Contains(lines, row.Mark.X) {
			lines = append(lines, row.Mark.X)
		}
	}
	for _, line := range lines {
		fmt.Fprintf(b, "| %s |", line)
		for _, s := range series {
			fmt.Fprintf(b, " %s |", dash(cells[mark{figure, s, line}]))
		}
		b.WriteString("\n")
	}
}
