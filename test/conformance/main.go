// Command conformance runs the network tests of Kubernetes' own end-to-end
// suite, unchanged, against clusters of the lab whose network is this project's
// manifest, and writes the results as a page.
//
// It runs itself again inside a sandbox, so nothing of it touches the host's
// network.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"flannel/lab/cgroup"
	"flannel/lab/sandbox"
)

// settings are the flags.
type settings struct {
	only, focus string
	results     string
	page        string
	procs       int
}

func main() {
	s, err := parse(os.Args[1:])
	sandbox.Main("conformance", err, s.inside,
		// What an interrupted lab has left.
		func() error { return cgroup.Sweep(context.Background()) })
}

func parse(args []string) (settings, error) {
	var s settings
	fs := flag.NewFlagSet("conformance", flag.ContinueOnError)
	fs.StringVar(&s.only, "only", "", "comma-separated list of `runs`: "+strings.Join(runNames(), ", ")+" (default: all)")
	fs.StringVar(&s.focus, "focus", "", "only tests whose name matches this `regexp`, including those that are otherwise skipped; their results are not kept")
	fs.StringVar(&s.results, "results", "dist/out/conformance", "`folder` that keeps the last result of each run")
	fs.StringVar(&s.page, "page", "Documentation/conformance.md", "`file` for the results of all runs, written when each has one")
	fs.IntVar(&s.procs, "procs", 6, "tests that run at the same time")
	err := fs.Parse(args)
	if err == nil && fs.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	for _, name := range s.names() {
		if err == nil && !slices.Contains(runNames(), name) {
			err = fmt.Errorf("-only %s: use %s", name, strings.Join(runNames(), ", "))
		}
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "conformance:", err)
	}
	return s, err
}

func (s *settings) names() []string {
	if s.only == "" {
		return runNames()
	}
	return strings.Split(s.only, ",")
}

// inside runs the suite, in the sandbox, and returns the exit code.
func (s settings) inside(ctx context.Context) int {
	if err := s.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		return 1
	}
	return 0
}

func (s *settings) run(ctx context.Context) error {
	names := s.names()
	fmt.Printf("about %d minutes on two cores for %s; a dot is a test that has passed\n",
		len(names)*minutesPerRun, strings.Join(names, ", "))
	from, err := findOrigin(ctx)
	if err != nil {
		return err
	}
	images, err := buildImages()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range runs() {
		if !slices.Contains(names, r.name) {
			continue
		}
		got, err := s.one(ctx, r, images)
		if got != nil && s.focus == "" {
			err = errors.Join(err, s.keep(r, kept{from, got}))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("run %s: %w", r.name, err))
		}
		if got == nil {
			return errors.Join(errs...)
		}
	}
	if s.focus == "" {
		errs = append(errs, s.writePage())
	}
	return errors.Join(errs...)
}

// one does one run and shows its result. There is one, beside the error, also
// when tests have failed.
func (s *settings) one(ctx context.Context, r run, images []string) (result, error) {
	focus, skip := r.focus(), skip()
	if s.focus != "" {
		focus, skip = s.focus, ""
	}
	fmt.Printf("run %s\n", r.name)
	start := time.Now()
	got, err := r.test(ctx, images, focus, skip, s.procs)
	if err != nil {
		return nil, err
	}
	return got, got.report(os.Stdout, r.name, time.Since(start))
}
