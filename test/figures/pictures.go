package main

import (
	"bytes"
	"fmt"
	"html"
	"image/color"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	// The formats.
	_ "gonum.org/v1/plot/vg/vgimg"
	_ "gonum.org/v1/plot/vg/vgsvg"
)

// picture is one figure of the documentation.
type picture struct {
	name, title, y string
	draw           func(*plot.Plot, []row) error
	height         vg.Length
	// room is left free beside the names of rows, for fonts that are wider.
	room vg.Length
}

func pictures() []picture {
	return []picture{
		{"throughput", "Between two pods, beside a bare veth pair (1.0)", "ratio, higher is better", drawRatios, 3.4 * vg.Inch, 0},
		{"joining", "A node joins: start to last entry in the kernel", "seconds", drawLines, 3.4 * vg.Inch, 0},
		{"memory", "Peak memory of a join", "MB", drawLines, 3.4 * vg.Inch, 0},
		{"further", "A further peer: from the put to etcd to the kernel", "ms", drawLines, 3.4 * vg.Inch, 0},
		{"silence", "Longest silence between pods for each fault", "ms (log scale)", drawBars, 4.2 * vg.Inch, vg.Points(25)},
	}
}

const width = 7 * vg.Inch

// colours of the series, which people with any sight can tell apart (Okabe and
// Ito).
var colours = []color.RGBA{{0, 114, 178, 255}, {230, 159, 0, 255}, {0, 158, 115, 255}, {204, 121, 167, 255}}

// drawAll writes the pictures for which the results have rows.
func drawAll(r results, folder, format string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, p := range pictures() {
		rows := r.marked(p.name)
		if len(rows) == 0 {
			continue
		}
		image, err := p.render(r, rows, format)
		if err != nil {
			return fmt.Errorf("draw %s: %w", p.name, err)
		}
		if err := os.WriteFile(filepath.Join(folder, p.name+"."+format), image, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// marked returns the measured rows of a figure.
func (r results) marked(figure string) []row {
	return slices.DeleteFunc(slices.Clone(r.Rows), func(row row) bool {
		return row.Mark.Figure != figure || len(row.Samples) == 0
	})
}

func (p picture) render(r results, rows []row, format string) ([]byte, error) {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	plotter.DefaultFont = plot.DefaultFont
	canvas := plot.New()
	canvas.Title.Text = p.title + "\n" + r.About.Machine + ", Linux " + r.About.Kernel
	canvas.Title.TextStyle.Font.Size = 11
	canvas.Title.Padding = vg.Points(8)
	canvas.Y.Label.Text = p.y
	canvas.Legend.Top, canvas.Legend.Left = true, true
	canvas.Legend.Padding = vg.Points(2)
	canvas.Legend.TextStyle.Font.Size = 10
	canvas.X.Tick.Label.Font.Size, canvas.Y.Tick.Label.Font.Size = 9, 9
	canvas.X.Label.TextStyle.Font.Size, canvas.Y.Label.TextStyle.Font.Size = 10, 10
	if err := p.draw(canvas, rows); err != nil {
		return nil, err
	}
	paper, err := draw.NewFormattedCanvas(width, p.height, format)
	if err != nil {
		return nil, err
	}
	all := draw.New(paper)
	all.FillPolygon(color.White, []vg.Point{{}, {X: width}, {X: width, Y: p.height}, {Y: p.height}})
	const margin = 8
	canvas.Draw(draw.Crop(all, margin+p.room, -margin, margin, -margin))
	var b bytes.Buffer
	if _, err := paper.WriteTo(&b); err != nil {
		return nil, err
	}
	var names []string
	if p.room > 0 {
		names = distinct(rows, abscissa)
	}
	return fitTexts(b.Bytes(), names), nil
}

// svgText matches a text as the library writes it.
var svgText = regexp.MustCompile(`<text x="([-.0-9]+)" ([^>]*)font-family:Liberation Sans;([^>]*)font-size:([.0-9]+)px([^>]*)>([^<]*)</text>`)

// fitTexts makes the texts of an SVG as wide as the picture was drawn for,
// whatever font shows them: Arial and Helvetica have the same widths, and in any
// other font a browser fits the text. The names end where they should also in
// programs that do not.
func fitTexts(svg []byte, names []string) []byte {
	return svgText.ReplaceAllFunc(svg, func(text []byte) []byte {
		part := svgText.FindSubmatch(text)
		x, _ := strconv.ParseFloat(string(part[1]), 64)
		size, _ := strconv.ParseFloat(string(part[4]), 64)
		content := html.UnescapeString(string(part[6]))
		face := font.DefaultCache.Lookup(plot.DefaultFont, vg.Points(size))
		wide := face.Width(content).Points()
		anchor := ""
		if slices.Contains(names, content) {
			x += wide
			anchor = `text-anchor="end" `
		}
		return fmt.Appendf(nil, `<text x="%.5g" %stextLength="%.5g" lengthAdjust="spacingAndGlyphs" %sfont-family:Liberation Sans,Arial,Helvetica,sans-serif;%sfont-size:%spx%s>%s</text>`,
			x, anchor, wide, part[2], part[3], part[4], part[5], part[6])
	})
}

// distinct returns the values of rows in the order of their appearance.
func distinct(rows []row, of func(row) string) []string {
	var out []string
	for _, r := range rows {
		if !slices.Contains(out, of(r)) {
			out = append(out, of(r))
		}
	}
	return out
}

func series(r row) string { return r.Mark.Series }

func abscissa(r row) string { return r.Mark.X }
