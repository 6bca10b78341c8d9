package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// base is the series that the others are compared with.
const base = "bare veth"

// drawRatios draws a group of bars per kind of traffic, a bar per backend, in
// parts of what the base reaches; above each bar is the figure itself, without its
// unit, which is below the group.
func drawRatios(p *plot.Plot, rows []row) error {
	groups, names := distinct(rows, abscissa), distinct(rows, series)
	of := map[[2]string]row{}
	for _, r := range rows {
		of[[2]string{r.Mark.Series, r.Mark.X}] = r
	}
	const thick = 26
	for i, name := range names {
		var labels []string
		values := make(plotter.Values, len(groups))
		for j, group := range groups {
			r, whole := of[[2]string{name, group}], of[[2]string{base, group}]
			if len(r.Samples) == 0 || median(whole.Samples) == 0 {
				return fmt.Errorf("%s of %s or %s was not measured", group, name, base)
			}
			values[j] = median(r.Samples) / median(whole.Samples)
			labels = append(labels, strings.TrimSuffix(texts(r.Unit, median(r.Samples))[0], units[r.Unit].name))
		}
		bars, err := plotter.NewBarChart(values, vg.Points(thick))
		if err != nil {
			return err
		}
		bars.Offset = vg.Points(thick+4) * vg.Length(float64(i)-float64(len(names)-1)/2)
		bars.Color, bars.LineStyle.Width = colours[i%len(colours)], 0
		text, err := labelsOver(values, labels)
		if err != nil {
			return err
		}
		text.Offset = vg.Point{X: bars.Offset, Y: vg.Points(2)}
		p.Add(bars, text)
		p.Legend.Add(name, bars)
	}
	for i, group := range groups {
		if unit := units[of[[2]string{base, group}].Unit].name; unit != "" {
			groups[i] += ", " + unit
		}
	}
	p.NominalX(groups...)
	p.X.Min, p.X.Max = -0.5, float64(len(groups))-0.5
	p.Y.Min, p.Y.Max = 0, p.Y.Max*1.45
	p.Y.Tick.Marker = plot.ConstantTicks{{Value: 0, Label: "0"}, {Value: 0.25}, {Value: 0.5, Label: "0.5"}, {Value: 0.75}, {Value: 1, Label: "1.0"}}
	return nil
}

func labelsOver(values plotter.Values, labels []string) (*plotter.Labels, error) {
	xys := make(plotter.XYs, len(values))
	for i, v := range values {
		xys[i] = plotter.XY{X: float64(i), Y: v}
	}
	text, err := plotter.NewLabels(plotter.XYLabels{XYs: xys, Labels: labels})
	if err != nil {
		return nil, err
	}
	for i := range text.TextStyle {
		text.TextStyle[i].XAlign, text.TextStyle[i].Font.Size = draw.XCenter, 9
	}
	return text, nil
}

// drawBars draws a bar per row from left to right, the longest one on top, on a
// logarithmic scale from 1 ms on. The line of each ends at its longest sample.
func drawBars(p *plot.Plot, rows []row) error {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(median(a.Samples), median(b.Samples)) })
	const from = 1
	values, longest := make(plotter.Values, len(rows)), 0.0
	ends, labels, names := make(plotter.XYs, len(rows)), make([]string, len(rows)), make([]string, len(rows))
	ranges := make(plotter.XErrors, len(rows))
	for i, r := range rows {
		milliseconds := func(v float64) float64 { return math.Max(v*units[r.Unit].factor*1000, from) }
		values[i] = milliseconds(median(r.Samples))
		most := milliseconds(slices.Max(r.Samples))
		longest = math.Max(longest, most)
		ends[i] = plotter.XY{X: values[i], Y: float64(i)}
		ranges[i].Low, ranges[i].High = 0, most-values[i]
		labels[i], names[i] = texts(r.Unit, median(r.Samples))[0], r.Mark.X
	}
	lines, err := plotter.NewXErrorBars(struct {
		plotter.XYs
		plotter.XErrors
	}{ends, ranges})
	if err != nil {
		return err
	}
	after := make(plotter.XYs, len(ends))
	for i := range ends {
		after[i] = plotter.XY{X: ends[i].X + ranges[i].High, Y: ends[i].Y}
	}
	text, err := plotter.NewLabels(plotter.XYLabels{XYs: after, Labels: labels})
	if err != nil {
		return err
	}
	for i := range text.TextStyle {
		text.TextStyle[i].YAlign, text.TextStyle[i].Font.Size = draw.YCenter, 9
	}
	text.Offset.X = vg.Points(5)
	p.Add(logBars{values, from}, lines, text)
	p.NominalY(names...)
	p.X.Label.Text, p.Y.Label.Text = p.Y.Label.Text, ""
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, logTicks{}
	p.X.Min, p.X.Max = from, longest*3
	p.Y.Min, p.Y.Max = -0.6, float64(len(rows))-0.4
	return nil
}

// logBars are horizontal bars from a value above zero on, which bar charts of
// the library cannot be.
type logBars struct {
	values plotter.Values
	from   float64
}

// Plot implements plot.Plotter.
func (b logBars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	const thick = 12
	for i, v := range b.values {
		middle := y(float64(i))
		c.FillPolygon(colours[0], c.ClipPolygonXY([]vg.Point{
			{X: x(b.from), Y: middle - thick/2}, {X: x(v), Y: middle - thick/2},
			{X: x(v), Y: middle + thick/2}, {X: x(b.from), Y: middle + thick/2},
		}))
	}
}
