package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"flannel/cleanup"
	"flannel/internal/version"
	"flannel/subnet/kube"
)

// cleanupFlags are those of cleanup.
type cleanupFlags struct {
	cleanup                        cleanup.Options
	stateDir                       string
	nodeAnnotations, stay          bool
	kubeconfig, apiURL, annotation string
}

func newCleanupFlagSet(o *cleanupFlags) *flag.FlagSet {
	o.cleanup = cleanup.Default()
	o.cleanup.Backends = backends()
	fs := flag.NewFlagSet("cleanup", flag.ContinueOnError)
	fs.BoolVar(&o.cleanup.DryRun, "dry-run", false, "print what would be removed, and remove nothing")
	fs.BoolVar(&o.cleanup.Force, "force", false, "do not check for a running daemon, which recreates what it needs")
	fs.BoolVar(&o.cleanup.CNI, "cni", false, "also remove the pods' bridge and interfaces, the CNI plugin and its files: pods lose their network")
	fs.BoolVar(&o.nodeAnnotations, "node-annotations", false, "also remove the annotations that this node publishes on its Node")
	fs.BoolVar(&o.stay, "stay", false, "keep running afterwards, as a container of a DaemonSet must")
	fs.StringVar(&o.cleanup.SubnetFile, "subnet-file", o.cleanup.SubnetFile, "`file` that the daemon has written")
	fs.StringVar(&o.stateDir, "state-dir", o.cleanup.StateDirs[0], "`folder` of the daemon's state")
	fs.StringVar(&o.cleanup.ConfDir, "conf-dir", o.cleanup.ConfDir, "`folder` of the runtime's network configurations")
	fs.StringVar(&o.cleanup.BinDir, "bin-dir", o.cleanup.BinDir, "`folder` of the runtime's plugins")
	fs.StringVar(&o.cleanup.DataDir, "cni-data-dir", o.cleanup.DataDir, "`folder` in which plugins keep the addresses that they have assigned")
	fs.StringVar(&o.kubeconfig, "kubeconfig-file", "", "for node-annotations: kubeconfig `file`; without it the configuration of the pod is used")
	fs.StringVar(&o.apiURL, "kube-api-url", "", "for node-annotations: `URL` of the Kubernetes API server")
	fs.StringVar(&o.annotation, "kube-annotation-prefix", "flannel.alpha.coreos.com", "for node-annotations: `prefix` of the annotations")
	return fs
}

// runCleanup removes what was made on this host.
func runCleanup(c command, args []string, stdout io.Writer) error {
	var o cleanupFlags
	if err := c.parseAll(newCleanupFlagSet(&o), args, stdout); err != nil {
		return err
	}
	o.cleanup.StateDirs[0] = o.stateDir
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	err := cleanup.Run(ctx, o.cleanup, stdout)
	if errors.Is(err, cleanup.ErrRunning) {
		return err
	}
	if o.nodeAnnotations {
		err = errors.Join(err, o.forget(ctx, stdout))
	}
	if o.stay && err == nil {
		<-ctx.Done()
	}
	return err
}

// forget removes the annotations of this node.
func (o *cleanupFlags) forget(ctx context.Context, stdout io.Writer) error {
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	removed, err := kube.Forget(ctx, kube.Options{
		Kubeconfig: o.kubeconfig, APIURL: o.apiURL, AnnotationPrefix: o.annotation,
		Getenv: os.Getenv, Hostname: hostname, Version: version.String(),
	}, o.cleanup.DryRun)
	verb := "removed"
	if o.cleanup.DryRun {
		verb = "would remove"
	}
	for _, key := range removed {
		fmt.Fprintf(stdout, "%s annotation %s\n", verb, key)
	}
	return err
}
