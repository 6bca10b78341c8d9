package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"flannel/doctor"
	"flannel/doctor/gather"
	"flannel/internal/ipfam"
	"flannel/subnet"
)

// exitCode ends a command with an exit code, without a message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// doctorFlags are those of doctor.
type doctorFlags struct {
	output  string
	bundle  string
	config  string
	verbose bool
	// explain names a check that is to be explained.
	explain string
	// preflight checks a host on which flanneld is to be installed.
	preflight bool
	gather    gather.Options
}

func newDoctorFlagSet(o *doctorFlags) *flag.FlagSet {
	o.gather = gather.Default()
	o.gather.Access, o.gather.Backends = accessOf, backends()
	fs := flag.NewFlagSet("doctor", flag.ContinueOnError)
	fs.StringVar(&o.output, "o", "text", "`format`: text or json")
	fs.StringVar(&o.bundle, "bundle", "", "write what an issue report needs to this new `file` (tar.gz), without secrets")
	fs.StringVar(&o.explain, "explain", "", "explain a `check`, and examine nothing")
	fs.BoolVar(&o.preflight, "preflight", false, "check a host on which flanneld is to be installed with -config")
	fs.StringVar(&o.config, "config", "", "network configuration `file` for -preflight")
	fs.BoolVar(&o.verbose, "v", false, "also show what may be harmless")
	fs.StringVar(&o.gather.Daemon, "daemon", o.gather.Daemon, "`address` of the daemon's health port, to ask instead of the socket")
	fs.StringVar(&o.gather.SubnetFile, "subnet-file", o.gather.SubnetFile, "`file` that the daemon writes")
	fs.StringVar(&o.gather.CNIConfDir, "cni-conf-dir", o.gather.CNIConfDir, "`folder` of the runtime's network configurations")
	return fs
}

// runDoctor checks this host.
func runDoctor(c command, args []string, stdout io.Writer) error {
	var o doctorFlags
	if err := c.parseAll(newDoctorFlagSet(&o), args, stdout); err != nil {
		return err
	}
	switch {
	case o.explain != "" && doctor.Explain(stdout, o.explain):
		return nil
	case o.explain != "":
		return usageError{fmt.Errorf("-explain %s: the checks are %s", o.explain, strings.Join(doctor.Names(), ", "))}
	case o.output != "text" && o.output != "json":
		return usageError{fmt.Errorf("-o %s: use text or json", o.output)}
	case o.preflight != (o.config != ""):
		return usageError{errors.New("-preflight and -config FILE belong together")}
	case o.preflight && o.bundle != "":
		return usageError{errors.New("-preflight and -bundle exclude each other")}
	}
	checks := doctor.Checks()
	if o.preflight {
		o.gather.Wanted, checks = wanted(o.config), doctor.Preflight()
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	report := doctor.Examine(gather.HostName(), gather.Gather(ctx, o.gather), checks)
	if o.bundle != "" {
		if err := gather.Bundle(ctx, o.bundle, o.gather, report); err != nil {
			return fmt.Errorf("pack %s: %w", o.bundle, err)
		}
	}
	if o.output == "json" {
		if err := report.WriteJSON(stdout); err != nil {
			return err
		}
	} else {
		report.WriteText(stdout, o.verbose)
	}
	if code := report.ExitCode(); code != 0 {
		return exitCode(code)
	}
	return nil
}

// wanted reads a network configuration for a preflight.
func wanted(file string) *doctor.Wanted {
	w := &doctor.Wanted{File: file}
	text, err := os.ReadFile(file)
	if err != nil {
		w.Err = err
		return w
	}
	c, err := subnet.ParseConfig(text, false)
	if err != nil {
		w.Err = err
		return w
	}
	w.Network = ipfam.List(c.Network)
	w.Backend, _ = backends().Find(c.BackendType)
	parsed, unknown, err := backends().Parse(c)
	w.Err, w.Unknown = err, append(c.Warnings, unknown...)
	if err == nil {
		w.Encapsulation = parsed.Encapsulation()
	}
	return w
}
