package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flannel/internal/testkit/assets"
	"flannel/lab"
)

// TestCnitoolDrivesTheChainWithEveryVersion lets the CNI project's own runtime
// attach a pod to a node that a real flanneld has prepared.
func TestCnitoolDrivesTheChainWithEveryVersion(t *testing.T) {
	tool, err := assets.Path("cnitool")
	lab.Must(t, err)
	l := newLab(t, lab.Options{Hosts: 1})
	h := l.Hosts[0]
	lab.Must(t, h.StartFlanneld())
	ready(t, h)
	// A daemon that runs would write subnet.env again while the test has moved it.
	lab.Must(t, h.Flanneld().Stop())
	dir, err := lab.BuildStatic("flannel/cmd/flannel")
	lab.Must(t, err)
	// Plugins and runtime keep their files there.
	lab.Must(t, h.CopyOnWrite("/var"))
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			c := cnitool{t: t, host: h, program: tool, path: dir + ":" + filepath.Dir(tool), conf: t.TempDir()}
			lab.Must(t, os.WriteFile(filepath.Join(c.conf, "10-flannel.conflist"), fmt.Appendf(nil, chain, version), 0o644))
			c.test(version)
		})
	}
}

// chain is the manifest's.
const chain = `{"name": "cbr0", "cniVersion": %q, "plugins": [
	{"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
	{"type": "portmap", "capabilities": {"portMappings": true}}
]}`

// cnitool runs the program of that name on a host.
type cnitool struct {
	t                   *testing.T
	host                *lab.Host
	program, path, conf string
}

func (c cnitool) run(verb string) (string, error) {
	return c.host.Exec(c.t.Context(), "env", "CNI_PATH="+c.path, "NETCONFPATH="+c.conf,
		`CAP_ARGS={"portMappings": [{"hostPort": 8000, "containerPort": 80, "protocol": "tcp"}]}`,
		c.program, verb, "cbr0", "/run/netns/pod")
}

func (c cnitool) must(verb string) string {
	c.t.Helper()
	out, err := c.run(verb)
	lab.Must(c.t, err)
	return out
}

func (c cnitool) test(version string) {
	t := c.t
	_, err := c.host.Exec(t.Context(), "ip", "netns", "add", "pod")
	lab.Must(t, err)
	t.Cleanup(func() { _, _ = c.host.Exec(context.WithoutCancel(t.Context()), "ip", "netns", "delete", "pod") })
	// Before 1.1.0 libcni asks no plugin for its status, and frees what nobody
	// holds by DEL.
	c.must("status")
	for _, detach := range []string{"del", "gc"} {
		if out := c.must("add"); !strings.Contains(out, `"cniVersion": "`+version+`"`) {
			t.Errorf("add: got %s, want the result in version %s", out, version)
		}
		c.attached(true)
		if _, err := c.run("check"); (err == nil) != (version != "0.3.1") {
			t.Errorf("check: got %v; there is none in version 0.3.1 only", err)
		}
		c.must(detach)
		c.attached(false)
		c.must(detach)
	}
	lab.Must(t, c.host.Do(func() error { return os.Rename(lab.DefaultSubnetFile, lab.DefaultSubnetFile+".away") }))
	if _, err := c.run("status"); (err != nil) != (version == "1.1.0") {
		t.Errorf("status without subnet.env: got %v; plugins are asked from version 1.1.0 on", err)
	}
	lab.Must(t, c.host.Do(func() error { return os.Rename(lab.DefaultSubnetFile+".away", lab.DefaultSubnetFile) }))
}

// attached checks that the pod has an address, its port is mapped and files of
// it are kept, or that nothing of this is left.
func (c cnitool) attached(want bool) {
	c.t.Helper()
	for what, command := range map[string]string{
		"address":      "ip -netns pod -4 -brief address show dev eth0 2>/dev/null || true",
		"reservation":  "ls /var/lib/cni/networks/cbr0 | grep '^10[.]' || true",
		"mapped port":  "iptables-save -t nat | grep 'dport 8000' || true",
		"scratch file": "ls /var/lib/cni/flannel",
	} {
		out, err := c.host.Exec(c.t.Context(), "sh", "-c", command)
		lab.Must(c.t, err)
		if (strings.TrimSpace(out) != "") != want {
			c.t.Errorf("%s: got %q, want one: %t", what, out, want)
		}
	}
}
