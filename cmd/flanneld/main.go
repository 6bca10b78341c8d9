// Command flanneld leases a subnet for this node and keeps the node's overlay
// network so that pods on all nodes reach each other.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/dockeropts"
	"flannel/internal/logging"
	"flannel/internal/version"
)

// Exit codes: a command line that cannot be parsed has one of its own.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// stopTimeout is how long the daemon takes to end in order; then it ends
// anyway.
const stopTimeout = 4 * time.Second

// startOverEvery is how often at most the daemon is built again while it runs.
// What it is built from can be changed by others, again and again.
const startOverEvery = 5 * time.Second

// gcPercent makes the garbage collector run when the heap has grown by this
// much. Passes leave much garbage beside a small live heap, and memory is what
// a daemon on every node should save. GOGC in the environment wins.
const gcPercent = 25

func main() {
	if filepath.Base(os.Args[0]) == dockeropts.Name {
		os.Exit(dockeropts.Run(os.Args, os.Getenv, os.Stdout, os.Stderr))
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	os.Exit(run(ctx, arguments(os.Args), os.Environ(), os.Stdout, os.Stderr))
}

// run is main without the process around it; it returns the exit code.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	if c := findCommand(args); c != nil {
		return c.do(args[1:], stdout, stderr)
	}
	o, err := parseFlags(args, environ)
	var usage usageError
	switch {
	case errors.Is(err, flag.ErrHelp):
		writeUsage(stdout)
		return exitOK
	case errors.As(err, &usage):
		writeUsage(stderr)
		fmt.Fprintf(stderr, "\nflanneld: %v\n", err)
		return exitUsage
	case err != nil:
		fmt.Fprintf(stderr, "flanneld: %v\n", err)
		return exitError
	case o.version:
		fmt.Fprint(stdout, version.Details(o.verbosity > 0))
		return exitOK
	}
	log, err := logging.New(stderr, logging.Options{V: o.verbosity, VModule: o.vmodule, Format: o.logFormat, BacktraceAt: o.logBacktraceAt})
	if err != nil {
		fmt.Fprintf(stderr, "flanneld: %v\n", err)
		return exitError
	}
	var last time.Time
	for err = errStartOver; errors.Is(err, errStartOver); last = time.Now() {
		d, buildErr := newDaemon(o, log, os.Getenv)
		if buildErr != nil {
			fmt.Fprintf(stderr, "flanneld: %v\n", buildErr)
			return exitError
		}
		d.startOverFrom = last.Add(startOverEvery)
		err = runUntilStopped(ctx, d.run)
	}
	if err != nil {
		log.Error("flanneld exits", "err", err)
		return exitError
	}
	log.Info("flanneld stopped; the data path stays as it is")
	return exitOK
}

// runUntilStopped runs until ctx ends, which is no error, and at most
// stopTimeout longer.
func runUntilStopped(ctx context.Context, run func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	select {
	case err := <-done:
		return ended(ctx, err)
	case <-ctx.Done():
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return ended(ctx, err)
	case <-timer.C:
		return nil
	}
}

func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
