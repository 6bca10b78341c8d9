// Package cleanup removes what this software and flannel have made on this host, and
// nothing else.
package cleanup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"flannel/backend"
	"flannel/internal/statedir"
	"flannel/kernel"
	"flannel/subnet/env"
)

// Options define what to remove, and where it is.
type Options struct {
	// Backends are the types whose devices are removed.
	Backends backend.Table
	// DryRun only prints what would be removed, Force does not look for daemons.
	DryRun, Force bool
	// CNI also removes the pods' bridge and interfaces, and what the CNI plugin
	// keeps.
	CNI bool

	SubnetFile, RunDir, LockDir, Proc string
	StateDirs                         []string
	// ConfDir and BinDir are the runtime's folders, DataDir is where plugins keep
	// addresses and configurations.
	ConfDir, BinDir, DataDir string
}

// Default are the places on a host.
func Default() Options {
	return Options{
		SubnetFile: "/run/flannel/subnet.env", RunDir: "/run/flannel", LockDir: kernel.LockDir, Proc: "/proc",
		StateDirs: []string{"/var/lib/flannel", statedir.Fallback},
		ConfDir:   "/etc/cni/net.d", BinDir: "/opt/cni/bin", DataDir: "/var/lib/cni",
	}
}

// Thing is something to remove.
type Thing struct {
	// Name describes it for people, as "device flannel.1".
	Name   string
	Remove func() error
}

// ErrRunning means that a daemon would make again what is removed.
var ErrRunning = errors.New("a daemon is running")

// Run removes everything from the network namespace of the calling thread, and prints
// each thing. What cannot be removed is an error; the rest goes on. The error wraps
// ErrRunning if nothing was done because a daemon runs.
func Run(ctx context.Context, o Options, out io.Writer) error {
	if !o.Force {
		if err := running(o); err != nil {
			return err
		}
	}
	h, err := open(o)
	if err != nil {
		return err
	}
	defer h.close()
	var errs []error
	n := 0
	remove := func(list []Thing, err error) {
		errs = append(errs, err)
		for _, t := range list {
			if ctx.Err() != nil {
				return
			}
			n++
			errs = append(errs, o.remove(t, out))
		}
	}
	// The file that names the networks goes last: cleanup that is interrupted knows
	// them at the next try. Routes are listed before their devices go.
	left := h.leftRoutes()
	remove(h.routes(), nil)
	remove(h.nfTables())
	remove(h.legacy(ctx))
	remove(h.devices(), nil)
	if o.CNI {
		remove(h.cni())
	}
	remove(files(o), nil)
	for _, line := range left {
		fmt.Fprintf(out, "left: %s\n", line)
	}
	if n == 0 {
		fmt.Fprintln(out, "nothing to remove")
	}
	return errors.Join(append(errs, ctx.Err())...)
}

func (o Options) remove(t Thing, out io.Writer) error {
	if o.DryRun {
		fmt.Fprintf(out, "would remove %s\n", t.Name)
		return nil
	}
	if err := t.Remove(); err != nil {
		return fmt.Errorf("remove %s: %w", t.Name, err)
	}
	fmt.Fprintf(out, "removed %s\n", t.Name)
	return nil
}

// networks returns those that subnet.env names; without the file none are known.
func networks(o Options) []netip.Prefix {
	e, err := env.Read(o.SubnetFile)
	if err != nil {
		return nil
	}
	return e.Networks()
}
