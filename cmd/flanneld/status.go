package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/loop"
	"flannel/internal/passage"
	"flannel/kernel/look"
	"flannel/status"
)

// watchEvery is how often status --watch asks.
const watchEvery = 2 * time.Second

// clearScreen is what a terminal clears itself for.
const clearScreen = "\x1b[H\x1b[2J"

// statusFlags are those of status.
type statusFlags struct {
	output string
	watch  bool
	ask    status.Options
}

func newStatusFlagSet(o *statusFlags) *flag.FlagSet {
	fs := flag.NewFlagSet("status", flag.ContinueOnError)
	fs.StringVar(&o.output, "o", "text", "`format`: text, wide or json")
	fs.BoolVar(&o.watch, "watch", false, "show the status again every 2 seconds")
	o.ask.Backends = backends()
	fs.StringVar(&o.ask.SubnetFile, "subnet-file", cmp.Or(os.Getenv(envPrefix+"SUBNET_FILE"), defaultSubnetFile),
		"`file` that the daemon writes; its socket is beside it")
	fs.StringVar(&o.ask.Daemon, "daemon", "", "`address` of the daemon's health port, to ask instead of the socket")
	return fs
}

// showStatus shows the state of this node, or the way to a peer.
func showStatus(c command, args []string, stdout io.Writer) error {
	var o statusFlags
	fs := newStatusFlagSet(&o)
	if err := c.parse(fs, args, stdout); err != nil {
		return err
	}
	// Flags are taken behind the argument too, as kubectl does.
	to := fs.Arg(0)
	if to != "" {
		if err := c.parse(fs, fs.Args()[1:], stdout); err != nil {
			return err
		}
	}
	switch {
	case to == "" && fs.NArg() > 0, to != "" && fs.NArg() > 0:
		return usageError{fmt.Errorf("unexpected argument %q", fs.Arg(0))}
	case !slices.Contains([]string{"text", "wide", "json"}, o.output):
		return usageError{fmt.Errorf("-o %s: use text, wide or json", o.output)}
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	for {
		text, err := o.show(ctx, to)
		if o.watch && isTerminal(stdout) {
			text = append([]byte(clearScreen), text...)
		}
		if _, writeErr := stdout.Write(text); writeErr != nil || !o.watch {
			return cmp.Or(writeErr, err)
		}
		if loop.Wait(ctx, watchEvery) != nil {
			return nil
		}
	}
}

// show returns what is shown once.
func (o statusFlags) show(ctx context.Context, to string) ([]byte, error) {
	report, asked := status.Ask(ctx, o.ask)
	var b bytes.Buffer
	var err error
	switch {
	case to != "":
		err = o.explain(ctx, &b, report, to)
	case o.output == "json":
		err = o.writeJSON(&b, report)
	default:
		err = report.WriteText(&b, time.Now(), o.output == "wide")
	}
	return b.Bytes(), cmp.Or(err, asked)
}

func (o statusFlags) explain(ctx context.Context, b *bytes.Buffer, report *status.Report, to string) error {
	ways, err := report.Find(to)
	if err != nil {
		return err
	}
	kernel, err := look.Open()
	if err != nil {
		return err
	}
	defer kernel.Close()
	for i := range ways {
		if report.From == status.FromDaemon {
			if err := o.ask.Probe(ctx, &ways[i]); err != nil {
				ways[i].ProbeProblem = err.Error()
			}
		}
		report.Explain(&ways[i], kernel, passage.Read)
	}
	if o.output == "json" {
		return o.writeJSON(b, ways)
	}
	for _, w := range ways {
		if err := w.WriteText(b); err != nil {
			return err
		}
	}
	return nil
}

// writeJSON writes a line for each watch, and else what people can read too.
func (o statusFlags) writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	if !o.watch {
		e.SetIndent("", "  ")
	}
	return e.Encode(v)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
