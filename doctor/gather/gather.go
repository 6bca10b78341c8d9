// Package gather reads the facts that package doctor looks at, from this host and
// its daemon. It changes nothing.
package gather

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"flannel/backend"
	"flannel/doctor"
	"flannel/internal/sysctl"
	"flannel/kernel"
	"flannel/subnet/env"
)

// timeout bounds how long one source is waited for; probes take five seconds at most.
const timeout = 7 * time.Second

// Options define where the facts are. The zero value of a field has no default.
type Options struct {
	// Backends are the types whose devices are the overlay's.
	Backends   backend.Table
	SubnetFile string
	// Daemon is the address of the daemon's health port; empty for its socket.
	Daemon string
	// CNIConfDir is the runtime's folder of network configurations.
	CNIConfDir string
	// Reservations is the folder in which host-local keeps a folder per network.
	Reservations string
	// Namespaces are patterns of files that are network namespaces of pods.
	Namespaces []string
	// Logs is where the kubelet links the logs of containers.
	Logs string
	// LockDir is where the locks of daemons are, and Sysctl where the kernel shows
	// its settings.
	LockDir, Sysctl string
	// Access finds out how a daemon with this command line and environment reaches its
	// store; without it the store is not looked at.
	Access func(args, environ []string) (Access, error)
	// Wanted is set before an installation: the daemon and its files are not looked
	// for then.
	Wanted *doctor.Wanted
}

// gatherer fills in facts, one source after the other: what a later one reads
// depends on earlier ones.
type gatherer struct {
	options Options
	facts   *doctor.Facts
}

// Gather reads everything that can be read. It works in the network namespace of the
// calling thread.
func Gather(ctx context.Context, o Options) *doctor.Facts {
	g := gatherer{o, &doctor.Facts{Backends: o.Backends, Settings: map[string]string{}}}
	f := g.facts
	f.Wanted = o.Wanted
	before, err := overflows()
	g.source("neighbor tables", err)
	f.Checksums.Before, err = wrongChecksums()
	g.source("TCP counters", err)
	if f.Wanted == nil {
		g.installed(ctx)
	}
	g.source("devices, addresses, routes and rules", g.network())
	if f.Wanted != nil {
		g.preflight()
	}
	for _, name := range f.SettingNames() {
		f.Settings[name] = sysctl.Read(o.Sysctl, name)
	}
	g.filters()
	f.KubeProxy = g.kubeProxy()
	g.pods()
	f.CNIConfDir = o.CNIConfDir
	f.CNIConfs = cniConfs(o.CNIConfDir)
	if e := f.SubnetFile.Env; e != nil {
		f.Reservations = reservations(o.Reservations, e.Masked())
	}
	f.Overflows.Before = before
	if f.Overflows.After, err = overflows(); err != nil {
		f.Overflows.After = before
	}
	if f.Checksums.After, err = wrongChecksums(); err != nil {
		f.Checksums.After = f.Checksums.Before
	}
	return f
}

// installed reads what the daemon has written, and asks it.
func (g gatherer) installed(ctx context.Context) {
	f := g.facts
	f.SubnetFile.Path = g.options.SubnetFile
	if e, err := env.Read(f.SubnetFile.Path); err != nil {
		f.SubnetFile.Err = err
	} else {
		f.SubnetFile.Env = &e
	}
	// Both may take seconds.
	var store sync.WaitGroup
	var failed error
	store.Go(func() { failed = g.store(ctx) })
	g.source("daemon", g.daemon(ctx))
	store.Wait()
	g.source("store", failed)
}

// cniConfs lists what a runtime takes for a network configuration, in its order. A
// folder that is missing has none: not every host has a runtime.
func cniConfs(dir string) []string {
	entries, _ := os.ReadDir(dir)
	var out []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext == ".conf" || ext == ".conflist" || ext == ".json" {
			out = append(out, e.Name())
		}
	}
	return out
}

// source notes a source that could not be read.
func (g gatherer) source(name string, err error) {
	if err != nil {
		g.facts.Unread = append(g.facts.Unread, doctor.Unread{Source: name, Problem: err.Error()})
	}
}

// Default are the places on a host.
func Default() Options {
	return Options{
		SubnetFile: "/run/flannel/subnet.env", CNIConfDir: "/etc/cni/net.d", Reservations: "/var/lib/cni/networks",
		Namespaces: []string{"/run/netns/*", "/run/docker/netns/*"}, Logs: "/var/log/containers", LockDir: kernel.LockDir, Sysctl: sysctl.Root,
	}
}

// HostName names this host for the report.
func HostName() string {
	name, err := os.Hostname()
	if err != nil {
		return fmt.Sprintf("this host (%v)", err)
	}
	return name
}
