package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"strings"
	"testing"

	"flannel/internal/testkit/golden"
)

func TestFlagsKeepTheirNamesAndDefaults(t *testing.T) {
	var b strings.Builder
	newFlagSet(&options{}).VisitAll(func(f *flag.Flag) { fmt.Fprintf(&b, "%s=%s\n", f.Name, f.DefValue) })
	golden.Equal(t, b.String(), "testdata/flags.txt")
}

func TestHelpListsEveryFlagAndExitsWithZero(t *testing.T) {
	for _, dash := range []string{"-", "--"} {
		var out, errs bytes.Buffer
		if code := run(context.Background(), []string{dash + "help"}, nil, &out, &errs); code != 0 {
			t.Errorf("exit code %d", code)
		}
		newFlagSet(&options{}).VisitAll(func(f *flag.Flag) {
			if !strings.Contains(out.String(), "-"+f.Name) {
				t.Errorf("%shelp does not name %s", dash, f.Name)
			}
		})
	}
}

func TestWrongCommandLines(t *testing.T) {
	tests := map[string]struct {
		args, environ []string
		code          int
		want          string
	}{
		"no such flag":           {args: []string{"--ifaces=eth0"}, code: exitUsage, want: "-ifaces"},
		"an argument":            {args: []string{"run"}, code: exitUsage, want: `"run" is not a flag`},
		"a value is missing":     {args: []string{"--iface"}, code: exitUsage, want: "needs an argument"},
		"not a number":           {args: []string{"--healthz-port=http"}, code: exitError, want: `invalid value "http" for flag -healthz-port`},
		"margin too small":       {args: []string{"--subnet-lease-renew-margin=0"}, code: exitError, want: "--subnet-lease-renew-margin: 0 is not allowed: use 1 to 1439 minutes"},
		"margin too large":       {args: []string{"--subnet-lease-renew-margin=1440"}, code: exitError, want: "1 to 1439"},
		"resync too small":       {args: []string{"--iptables-resync=0"}, code: exitError, want: "--iptables-resync: 0 is not allowed"},
		"port too large":         {args: []string{"--healthz-port=65536"}, code: exitError, want: "--healthz-port: 65536"},
		"bad regular expression": {args: []string{"--iface-regex=("}, code: exitError, want: "--iface-regex"},
		"bad public address":     {args: []string{"--public-ip=node1"}, code: exitError, want: "--public-ip"},
		"wrong family":           {args: []string{"--public-ip=fc00::1"}, code: exitError, want: "IPv4"},
		"bad vmodule":            {args: []string{"--vmodule=x"}, code: exitError, want: "--vmodule"},
		"bad environment":        {environ: []string{"FLANNELD_IPTABLES_RESYNC=often"}, code: exitError, want: `FLANNELD_IPTABLES_RESYNC: "often" is not allowed`},
		"no API server":          {args: []string{"--kube-subnet-mgr"}, code: exitError, want: "--kubeconfig-file: missing: outside a pod use"},
		"no such kubeconfig":     {args: []string{"--kube-subnet-mgr", "--kubeconfig-file=/nowhere"}, code: exitError, want: "--kubeconfig-file: "},
		"no network file":        {args: []string{"--kube-subnet-mgr", "--kube-api-url=http://127.0.0.1:1", "--net-config-path=/nowhere"}, code: exitError, want: "--net-config-path: open /nowhere"},
		"wrong prefix":           {args: []string{"--kube-subnet-mgr", "--kube-annotation-prefix=a/b/c"}, code: exitError, want: `--kube-annotation-prefix: "a/b/c" is not allowed`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if got := run(context.Background(), tt.args, tt.environ, &out, &errs); got != tt.code {
				t.Errorf("exit code %d, want %d", got, tt.code)
			}
			if !strings.Contains(errs.String(), tt.want) {
				t.Errorf("got %q, want %q", errs.String(), tt.want)
			}
			if tt.code == exitError && strings.Count(errs.String(), "\n") != 1 {
				t.Errorf("got %q, want one line", errs.String())
			}
			if out.Len() > 0 {
				t.Errorf("standard output: %q", out.String())
			}
		})
	}
}

func TestTheCommandLineWinsOverTheEnvironment(t *testing.T) {
	environ := []string{
		"FLANNELD_ETCD_PREFIX=/env", "FLANNELD_SUBNET_FILE=/env/subnet.env", "FLANNELD_IFACE=eth9", "FLANNELD_V=3", "FLANNELD_HEALTHZ_PORT=", "FLANNELD_ETCD_ENDPOINTS=",
		"EVENT_QUEUE_DEPTH=5", "CONT_WHEN_CACHE_NOT_READY=true",
	}
	o, err := parseFlags([]string{"-etcd-prefix", "/line", "--iface=eth0", "--iface=", "-iface=eth1"}, environ)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(o.etcdPrefix, o.subnetFile, o.uplink.Iface, o.verbosity)
	if want := "/line/env/subnet.env[eth0 eth1] 3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestVersionIsWrittenToStandardOutput(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(context.Background(), []string{"--version"}, nil, &out, &errs); code != 0 || out.Len() == 0 || errs.Len() > 0 {
		t.Errorf("code %d, out %q, err %q", code, out.String(), errs.String())
	}
}

func TestThePasswordIsNotPrinted(t *testing.T) {
	o, err := parseFlags(nil, []string{"FLANNELD_ETCD_PASSWORD=hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%v %+v %#v", o, o, o); strings.Contains(text, "hunter2") {
		t.Error("the password is in the printed options")
	}
}
