package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// point is the samples of one number of peers.
type point struct {
	x, low, middle, high float64
	text                 string
}

// points returns those of a series from few peers to many.
func points(rows []row, name string) (out []point, err error) {
	for _, r := range rows {
		if series(r) != name {
			continue
		}
		x, err := strconv.ParseFloat(r.Mark.X, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Name, err)
		}
		m := median(r.Samples)
		out = append(out, point{x, slices.Min(r.Samples), m, slices.Max(r.Samples), texts(r.Unit, m)[0]})
	}
	slices.SortFunc(out, func(a, b point) int { return int(a.x - b.x) })
	return out, nil
}

// drawLines draws figures against the number of peers, both logarithmic, with
// the range of the samples.
func drawLines(p *plot.Plot, rows []row) error {
	p.X.Label.Text = "peers"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.Y.Tick.Marker = logTicks{}
	var ticks plot.ConstantTicks
	for i, name := range distinct(rows, series) {
		ps, err := points(rows, name)
		if err != nil {
			return err
		}
		if err := addLine(p, name, ps, i); err != nil {
			return err
		}
		for _, q := range ps {
			if tick := (plot.Tick{Value: q.x, Label: thousands(q.x)}); !slices.Contains(ticks, tick) {
				ticks = append(ticks, tick)
			}
		}
	}
	p.X.Tick.Marker = ticks
	makeRoom(p)
	return nil
}

// addLine draws one series. Labels of the first are above their points, those of
// others below.
func addLine(p *plot.Plot, name string, ps []point, number int) error {
	xys, ranges, labels := make(plotter.XYs, len(ps)), make(plotter.YErrors, len(ps)), make([]string, len(ps))
	for i, q := range ps {
		xys[i] = plotter.XY{X: q.x, Y: positive(q.middle)}
		ranges[i].Low, ranges[i].High = xys[i].Y-positive(q.low), positive(q.high)-xys[i].Y
		labels[i] = q.text
	}
	line, dots, err := plotter.NewLinePoints(xys)
	if err != nil {
		return err
	}
	bars, err := plotter.NewYErrorBars(struct {
		plotter.XYs
		plotter.YErrors
	}{xys, ranges})
	if err != nil {
		return err
	}
	text, err := rangeLabels(xys, ranges, labels, number > 0)
	if err != nil {
		return err
	}
	colour := colours[number%len(colours)]
	line.Color, dots.Color, bars.Color = colour, colour, colour
	line.Width, dots.Shape, dots.Radius = vg.Points(1.5), draw.CircleGlyph{}, vg.Points(3)
	for i := range text.TextStyle {
		text.TextStyle[i].Color = colour
	}
	p.Add(line, dots, bars, text)
	p.Legend.Add(name, line, dots)
	return nil
}

// rangeLabels are above or below the ranges of points.
func rangeLabels(xys plotter.XYs, ranges plotter.YErrors, labels []string, below bool) (*plotter.Labels, error) {
	at := slices.Clone(xys)
	for i := range at {
		if at[i].Y += ranges[i].High; below {
			at[i].Y = xys[i].Y - ranges[i].Low
		}
	}
	text, err := plotter.NewLabels(plotter.XYLabels{XYs: at, Labels: labels})
	if err != nil {
		return nil, err
	}
	align := draw.YBottom
	text.Offset.Y = vg.Points(5)
	if below {
		align, text.Offset.Y = draw.YTop, -vg.Points(5)
	}
	for i := range text.TextStyle {
		text.TextStyle[i].XAlign, text.TextStyle[i].YAlign = draw.XCenter, align
		text.TextStyle[i].Font.Size = 9
	}
	return text, nil
}

// makeRoom widens the axes for labels.
func makeRoom(p *plot.Plot) {
	p.X.Min, p.X.Max = p.X.Min/1.6, p.X.Max*1.6
	p.Y.Min, p.Y.Max = p.Y.Min/2, p.Y.Max*2.5
}

// positive is what a logarithmic axis can show.
func positive(v float64) float64 { return math.Max(v, 1e-6) }

// logTicks are at 1, 2 and 5 times the powers of ten.
type logTicks struct{}

// Ticks implements plot.Ticker.
func (logTicks) Ticks(low, high float64) (out []plot.Tick) {
	for power := math.Pow10(int(math.Floor(math.Log10(low)))); power <= high; power *= 10 {
		for _, n := range []float64{1, 2, 5} {
			if v := n * power; v >= low && v <= high {
				out = append(out, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'f', -1, 64)})
			}
		}
	}
	return out
}

// thousands writes a whole number with a comma where people expect one.
func thousands(v float64) string {
	if v < 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%d,%03d", int(v)/1000, int(v)%1000)
}
