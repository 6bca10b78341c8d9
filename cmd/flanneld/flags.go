package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/logging"
	"flannel/internal/secret"
	"flannel/internal/statedir"
	"flannel/network/uplink"
)

// envPrefix starts the name of the environment variable of each flag.
const envPrefix = "FLANNELD_"

const defaultSubnetFile = "/run/flannel/subnet.env"

// options are the daemon's flags.
type options struct {
	etcdEndpoints, etcdPrefix              string
	etcdKeyFile, etcdCertFile, etcdCAFile  string
	etcdUsername                           string
	etcdPassword                           secret.String
	kubeSubnetMgr                          bool
	kubeAPIURL, kubeAnnotationPrefix       string
	kubeConfigFile                         string
	netConfigPath                          string
	setNodeNetworkUnavailable              bool
	uplink                                 uplink.Flags
	subnetFile, stateDir                   string
	cniConf, cniConfDir                    string
	leaseRenewMargin                       int
	ipMasq, ipMasqFullyRandomDisable       bool
	iptablesResync                         int
	iptablesForwardRules, ipBlackholeRoute bool
	healthzIP                              string
	healthzPort                            int
	statusRemote                           bool
	probe                                  bool
	version                                bool
	verbosity                              int
	vmodule, logBacktraceAt                string
	logFormat                              string
}

// list is a flag that may be repeated; an empty value counts as none.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(s string) error {
	if s != "" {
		*l = append(*l, s)
	}
	return nil
}

// newFlagSet declares every flag with its default.
func newFlagSet(o *options) *flag.FlagSet {
	fs := flag.NewFlagSet("flanneld", flag.ContinueOnError)
	fs.StringVar(&o.etcdEndpoints, "etcd-endpoints", "http://127.0.0.1:4001,http://127.0.0.1:2379", "comma-separated `URLs` of etcd")
	fs.StringVar(&o.etcdPrefix, "etcd-prefix", "/coreos.com/network", "`prefix` of the keys in etcd")
	fs.StringVar(&o.etcdKeyFile, "etcd-keyfile", "", "key `file` of the client certificate for etcd")
	fs.StringVar(&o.etcdCertFile, "etcd-certfile", "", "client certificate `file` for etcd")
	fs.StringVar(&o.etcdCAFile, "etcd-cafile", "", "CA `file` that verifies etcd's certificate; enough for TLS without a client certificate")
	fs.StringVar(&o.etcdUsername, "etcd-username", "", "user `name` for etcd")
	fs.Var(&o.etcdPassword, "etcd-password", "`password` for etcd; the environment keeps it out of the process list")
	fs.BoolVar(&o.kubeSubnetMgr, "kube-subnet-mgr", false, "take leases from Kubernetes Node objects instead of etcd")
	fs.StringVar(&o.kubeAPIURL, "kube-api-url", "", "`URL` of the Kubernetes API server")
	fs.StringVar(&o.kubeAnnotationPrefix, "kube-annotation-prefix", "flannel.alpha.coreos.com", "`prefix` of the annotations on Node objects")
	fs.StringVar(&o.kubeConfigFile, "kubeconfig-file", "", "kubeconfig `file`; without it and kube-api-url the configuration of the pod is used")
	fs.StringVar(&o.netConfigPath, "net-config-path", "/etc/kube-flannel/net-conf.json", "network configuration `file` with kube-subnet-mgr")
	fs.BoolVar(&o.setNodeNetworkUnavailable, "set-node-network-unavailable", true, "set the condition NetworkUnavailable of the Node to false when ready")
	fs.Var((*list)(&o.uplink.Iface), "iface", "`name` or IP address of the uplink; may be repeated, the first match wins")
	fs.Var((*list)(&o.uplink.IfaceRegex), "iface-regex", "regular `expression` for the uplink, matched against addresses, then names; may be repeated, tried after iface")
	fs.StringVar(&o.uplink.CanReach, "iface-can-reach", "", "use as uplink the interface that a route lookup to this `address` returns")
	fs.StringVar(&o.uplink.PublicIP, "public-ip", "", "IPv4 `address` that other nodes send to; the uplink's by default")
	fs.StringVar(&o.uplink.PublicIPv6, "public-ipv6", "", "IPv6 `address` that other nodes send to; the uplink's by default")
	fs.StringVar(&o.subnetFile, "subnet-file", defaultSubnetFile, "`file` that tells the CNI plugin and Docker this node's subnet")
	fs.StringVar(&o.stateDir, "state-dir", "/var/lib/flannel", "`folder` for what this node must know after a reboot; if it does not exist, "+statedir.Fallback+" is used; if empty, nothing is kept")
	fs.StringVar(&o.cniConf, "cni-conf", "", "CNI network configuration `file` to install once subnet-file is written; by default none is installed")
	fs.StringVar(&o.cniConfDir, "cni-conf-dir", "/etc/cni/net.d", "`folder` in which cni-conf is installed")
	fs.IntVar(&o.leaseRenewMargin, "subnet-lease-renew-margin", 60, "renew the lease when less than this many `minutes` are left, 1 to 1439")
	fs.BoolVar(&o.ipMasq, "ip-masq", false, "masquerade traffic that leaves the overlay network")
	fs.BoolVar(&o.ipMasqFullyRandomDisable, "ip-masq-fully-random-disable", false, "masquerade without --random-fully")
	fs.IntVar(&o.iptablesResync, "iptables-resync", 5, "`seconds` between checks of the iptables rules, at least 1")
	fs.BoolVar(&o.iptablesForwardRules, "iptables-forward-rules", true, "accept forwarded traffic of the overlay network")
	fs.BoolVar(&o.ipBlackholeRoute, "ip-blackhole-route", false, "add a blackhole route for this node's own subnet, for setups without a bridge")
	fs.StringVar(&o.healthzIP, "healthz-ip", "0.0.0.0", "`address` of the health server")
	fs.IntVar(&o.healthzPort, "healthz-port", 0, "`port` of the health server; 0 turns it off")
	fs.BoolVar(&o.statusRemote, "status-remote", false, "also serve /status and the page / to other hosts")
	fs.BoolVar(&o.probe, "probe", true, "probe the peers through the overlay; /status, /readyz and the metrics show the results")
	fs.BoolVar(&o.version, "version", false, "print version, commit and Go version, with -v=1 also the Go modules, and exit")
	fs.IntVar(&o.verbosity, "v", 0, "log `level`; 4 and above shows each decision")
	fs.StringVar(&o.vmodule, "vmodule", "", "log level for individual source files, as `pattern=N`,...")
	fs.StringVar(&o.logFormat, "log-format", logging.FormatText, "`format` of the log: text or json, one object per line")
	fs.StringVar(&o.logBacktraceAt, "log_backtrace_at", ":0", "log a stack trace at this `file:line`")
	return fs
}

// usageError is a command line that cannot be understood.
type usageError struct{ error }

// parseFlags reads the command line and, for flags that are not on it, the
// environment. The command line wins.
func parseFlags(args, environ []string) (*options, error) {
	o := &options{}
	fs := newFlagSet(o)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil, err
	case err != nil && strings.HasPrefix(err.Error(), "invalid "):
		return nil, err // a flag that exists, with a value that is not allowed
	case err != nil:
		return nil, usageError{err}
	case fs.NArg() > 0:
		return nil, usageError{fmt.Errorf("argument %q is not a flag: flags start with -", fs.Arg(0))}
	}
	if err := fromEnvironment(fs, environ); err != nil {
		return nil, err
	}
	return o, o.check()
}

// writeUsage writes what the program does and every flag.
func writeUsage(out io.Writer) {
	fmt.Fprint(out, `Usage: flanneld [flags]
       flanneld COMMAND [arguments]

flanneld leases a subnet for this node, tells the other nodes how to reach it,
and keeps this node's routes and devices so that pods reach each other.

Each flag can also be set in the environment: --etcd-endpoints is
`+envPrefix+`ETCD_ENDPOINTS. The command line wins.

Commands:
`)
	for _, c := range commands() {
		fmt.Fprintf(out, "  %s %s\n    \t%s\n", c.name, c.arguments, c.about)
	}
	fmt.Fprint(out, "\nFlags:\n")
	fs := newFlagSet(&options{})
	fs.SetOutput(out)
	fs.PrintDefaults()
}

// fromEnvironment sets the flags that the command line has not set. An empty
// variable counts as none.
func fromEnvironment(fs *flag.FlagSet, environ []string) error {
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var errs []error
	fs.VisitAll(func(f *flag.Flag) {
		name := envPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := lookup(environ, name)
		if !ok || value == "" || given[f.Name] {
			return
		}
		if err := fs.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %q is not allowed: %w", name, value, err))
		}
	})
	return errors.Join(errs...)
}

func lookup(environ []string, name string) (string, bool) {
	for _, entry := range environ {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// check refuses values that no flag type refuses.
func (o *options) check() error {
	switch {
	case o.leaseRenewMargin < 1 || o.leaseRenewMargin >= 24*60:
		return fmt.Errorf("--subnet-lease-renew-margin: %d is not allowed: use 1 to 1439 minutes", o.leaseRenewMargin)
	case o.iptablesResync < 1:
		return fmt.Errorf("--iptables-resync: %d is not allowed: use 1 second or more", o.iptablesResync)
	case o.healthzPort < 0 || o.healthzPort > 65535:
		return fmt.Errorf("--healthz-port: %d is not allowed: use 0 (off) to 65535", o.healthzPort)
	case o.cniConf != "" && o.cniConfDir == "":
		return errors.New("--cni-conf-dir: missing: use a path such as /etc/cni/net.d")
	case o.subnetFile == "":
		return errors.New("--subnet-file: missing: use a path such as /run/flannel/subnet.env")
	}
	if _, err := o.uplink.Options(ipfam.Pair[bool]{true, true}); err != nil {
		return err
	}
	return nil
}

func (o *options) renewMargin() time.Duration {
	return time.Duration(o.leaseRenewMargin) * time.Minute
}

// endpoints splits the list of URLs; empty parts count as none.
func (o *options) endpoints() []string {
	parts := strings.Split(o.etcdEndpoints, ",")
	for i, p := range parts {
		parts[i] = strings.TrimSpace(p)
	}
	return slices.DeleteFunc(parts, func(p string) bool { return p == "" })
}
