// Command bench measures what this software promises about speed, memory and
// healing, on the real kernel and a real etcd, and prints one table.
//
// It runs itself again inside a sandbox, so nothing of it touches the host's
// network. Documentation/performance.md explains what each line means.
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

	"flannel/lab/sandbox"
)

// exitError is the exit code if a figure could not be measured; one beyond its
// limit is no error.
const exitError = 1

// settings are the flags.
type settings struct {
	only     []string
	peers    int
	rounds   int
	out      string
	page     string
	flanneld string
}

func main() {
	s, err := parse(os.Args[1:])
	sandbox.Main("bench", err, s.inside)
}

func parse(args []string) (settings, error) {
	var s settings
	var only string
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&only, "only", "", "comma-separated list of `measures`: "+strings.Join(names(), ", "))
	fs.IntVar(&s.peers, "peers", 5000, "peers of the large network")
	fs.IntVar(&s.rounds, "rounds", 0, "rounds of each measure that has rounds (default: set by each measure)")
	fs.StringVar(&s.out, "out", "", "`file` for the results as JSON, which test/figures reads")
	fs.StringVar(&s.page, "page", "", "`file` of documentation in which the figures are replaced")
	fs.StringVar(&s.flanneld, "flanneld", "", "`path` of the daemon (default bin/flanneld)")
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	if only != "" {
		s.only = strings.Split(only, ",")
	}
	err := s.check(fs.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	return s, err
}

func (s *settings) check(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("unexpected argument %q", rest[0])
	}
	if s.peers < 1 || s.peers > maxPeers {
		return fmt.Errorf("-peers %d: 1 to %d are possible", s.peers, maxPeers)
	}
	if s.rounds < 0 {
		return fmt.Errorf("-rounds %d: it cannot be negative", s.rounds)
	}
	if s.page != "" && len(s.only) > 0 && !slices.Equal(s.only, []string{"fleet"}) {
		return fmt.Errorf("-page and -only: a page has all figures, or those of fleet alone")
	}
	for _, name := range s.only {
		if !known(name) {
			return fmt.Errorf("-only %s: use %s", name, strings.Join(names(), ", "))
		}
	}
	return nil
}

// inside measures, in the sandbox, and returns the exit code.
func (s settings) inside(ctx context.Context) int {
	start := time.Now()
	b, err := newBench(s, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return exitError
	}
	r := report{about: b.about(ctx)}
	r.rows, err = b.run(ctx)
	err = errors.Join(err, b.close())
	r.about.Seconds = time.Since(start).Round(time.Second).Seconds()
	if err := errors.Join(err, r.write(s, err == nil)); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return exitError
	}
	return 0
}

// write prints the table and writes the files that were asked for, unless
// something could not be measured: former results are better than a part of new
// ones.
func (r report) write(s settings, complete bool) error {
	err := r.text(os.Stdout)
	if s.out != "" && complete {
		err = errors.Join(err, r.writeResults(s.out))
	}
	if s.page != "" && complete {
		err = errors.Join(err, r.writePage(s.page))
	}
	return err
}
