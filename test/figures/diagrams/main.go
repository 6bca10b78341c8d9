// Command diagrams draws the pictures of the documentation: each .txt file of a
// folder becomes an .svg file beside it.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/bep/goat"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "diagrams:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: diagrams FOLDER")
	}
	sources, err := filepath.Glob(filepath.Join(args[0], "*.txt"))
	if err != nil {
		return err
	}
	if len(sources) == 0 {
		return fmt.Errorf("%s has no .txt file", args[0])
	}
	for _, source := range sources {
		text, err := os.Open(source)
		if err != nil {
			return err
		}
		svg := draw(text)
		text.Close()
		if err := os.WriteFile(target(source), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// target is the name of the picture of a source.
func target(source string) string { return strings.TrimSuffix(source, ".txt") + ".svg" }

// draw returns a picture in black on white: most readers see it as a file of
// its own, which does not know the colours of the page around it.
func draw(text io.Reader) string {
	svg := goat.BuildSVG(text)
	const margin = 8
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"%d 0 %d %d\" font-family=\"Menlo,Consolas,monospace\" font-size=\"13\">\n"+
		"<rect x=\"%[1]d\" width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n%[4]s</svg>\n",
		-margin, svg.Width+2*margin, svg.Height+margin, svg.Body)
}
