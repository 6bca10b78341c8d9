// Command figures draws the results of test/bench as pictures and compares two
// of them.
//
// It is a module of its own: the libraries for plots and statistics are needed
// by nothing else.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// The exit codes. Figures that got worse are no error.
const (
	exitError = 1
	exitUsage = 2
)

func main() {
	fs := flag.NewFlagSet("figures", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: figures [flags] RESULTS.json")
		fs.PrintDefaults()
	}
	pictures := fs.String("pictures", "", "`folder` for the pictures")
	png := fs.Bool("png", false, "draw PNG instead of SVG")
	old := fs.String("compare", "", "`file` with older results: print what differs by more than the noise")
	err := fs.Parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(exitUsage)
	case fs.NArg() != 1:
		fs.Usage()
		os.Exit(exitUsage)
	}
	format := "svg"
	if *png {
		format = "png"
	}
	if err := run(os.Stdout, fs.Arg(0), *old, *pictures, format); err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		os.Exit(exitError)
	}
}

func run(w io.Writer, path, old, pictures, format string) error {
	r, err := readResults(path)
	if err != nil {
		return err
	}
	if pictures != "" {
		if err := drawAll(r, pictures, format); err != nil {
			return err
		}
	}
	if old == "" {
		return nil
	}
	before, err := readResults(old)
	if err != nil {
		return err
	}
	return compare(before, r).write(w)
}
