package cleanup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flannel/backend"
	"flannel/backend/udp"
	"flannel/backend/vxlan"
	"flannel/internal/testkit/eventually"
	"flannel/internal/testkit/golden"
	"flannel/internal/testkit/nstest"
	"flannel/kernel"
)

// host is a namespace with the folders of a host.
type testHost struct {
	*nstest.NS
	t       *testing.T
	options Options
}

func newHost(t *testing.T) testHost {
	t.Helper()
	// Legacy programs must not meet the lock file of the host.
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
	dir := t.TempDir()
	o := Options{
		Backends: backend.Table{udp.Type, vxlan.Type},
		RunDir:   dir + "/run", SubnetFile: dir + "/run/subnet.env", LockDir: dir + "/run/lock", Proc: "/proc",
		StateDirs: []string{dir + "/state"}, ConfDir: dir + "/conf", BinDir: dir + "/bin", DataDir: dir + "/data",
	}
	h := testHost{nstest.New(t), t, o}
	h.AddUplink("eth0", "192.0.2.1/24")
	return h
}

func (h testHost) write(path, text string) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// run returns what cleanup prints, without the folders of the test.
func (h testHost) run(o Options) (string, error) {
	h.t.Helper()
	var out bytes.Buffer
	var err error
	h.Do(func() { err = Run(h.t.Context(), o, &out) })
	return strings.ReplaceAll(out.String(), filepath.Dir(h.options.RunDir), ""), err
}

// state is everything on the host that cleanup could touch.
func (h testHost) state() string {
	h.t.Helper()
	text := h.Dump() + h.Tool("nft", "list ruleset") + h.Tool("iptables-legacy-save") + h.IP("rule")
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") && !strings.Contains(line, "counter packets") {
			chain, _, _ := strings.Cut(line, " [") // counters
			lines = append(lines, strings.TrimSpace(chain)+"\n")
		}
	}
	_ = filepath.WalkDir(filepath.Dir(h.options.RunDir), func(path string, d os.DirEntry, _ error) error {
		if !d.IsDir() {
			lines = append(lines, path+"\n")
		}
		return nil
	})
	return strings.Join(lines, "")
}

// foreign plants what belongs to others and looks like ours.
func (h testHost) foreign() {
	for _, line := range []string{
		"link add cilium_vxlan type vxlan id 2 dstport 8472",
		"link add flannel.77 type bridge",
		"link add vxlan.calico type vxlan id 4096 dstport 4789 dev eth0 local 192.0.2.1",
		"link set vxlan.calico up",
		"tuntap add flannel0 mode tun",
		"route add 198.51.100.0/24 via 192.0.2.9 proto 70",
		"route add 10.244.9.0/24 via 192.0.2.9",
		"route add 10.244.10.0/24 via 192.0.2.9 proto static",
		"route add 10.99.0.0/16 via 192.0.2.9",
		"rule add to 10.244.0.0/16 lookup 220",
	} {
		h.IP(line)
	}
	for _, table := range []string{"nft", "legacy"} {
		for _, rule := range []string{
			"-t filter -N FLANNEL-FWD-MINE", "-t filter -A FORWARD -j FLANNEL-FWD-MINE",
			"-t filter -A FORWARD -s 10.244.0.0/16 -j ACCEPT", "-t nat -A POSTROUTING -s 10.244.0.0/16 -j MASQUERADE",
		} {
			h.Tool("iptables-"+table, rule)
		}
	}
	h.Tool("nft", "add table inet flannel-ipv4")
	h.Tool("nft", "add table ip flannel-ipv44")
	h.write(h.options.ConfDir+"/05-cilium.conflist", "{}")
	h.write(h.options.StateDirs[0]+"/notes.txt", "mine")
	h.write(h.options.DataDir+"/networks/other/10.1.1.2", "x")
	h.write(h.options.BinDir+"/bridge", "x")
}

// ours makes what this software and flannel make.
func (h testHost) ours() {
	h.write(h.options.SubnetFile, "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n")
	h.write(h.options.RunDir+"/subnet.sock", "")
	h.write(h.options.StateDirs[0]+"/last-run-0123456789ab.json", "{}")
	h.write(h.options.ConfDir+"/10-flannel.conflist", `{"name": "cbr0"}`)
	for _, line := range []string{
		"link add flannel.1 type vxlan id 1 dstport 8472 dev eth0 local 192.0.2.1",
		"link set flannel.1 up",
		"link add vx9 type vxlan id 9 dstport 8472 dev eth0 local 192.0.2.1",
		"link set vx9 alias flanneld-x",
		"addr add 10.244.1.0/32 dev flannel.1",
		"route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink proto 70",
		"route add 10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink metric 7 proto 70",
		"route add 10.244.4.0/24 via 192.0.2.4 proto 70",
		"route add blackhole 10.244.1.0/24 metric 4096 proto 70",
	} {
		h.IP(line)
	}
	if err := h.Handle.LinkSetAlias(h.Link("vx9"), kernel.Alias("/coreos.com/network")); err != nil {
		h.t.Fatal(err)
	}
	for _, kind := range []string{"nft", "legacy"} {
		for _, rule := range []string{
			"-t filter -N FLANNEL-FWD", "-t filter -A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT",
			"-t filter -I FORWARD -j FLANNEL-FWD",
			"-t nat -N FLANNEL-POSTRTG", "-t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN",
			"-t nat -A POSTROUTING -m comment --comment flanneld -j FLANNEL-POSTRTG",
		} {
			h.Tool("iptables-"+kind, rule)
		}
	}
	h.Tool("nft", "add table ip flannel-ipv4")
	h.Tool("nft", "add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority 100 ; }")
	h.Tool("nft", "add table ip6 flannel-ipv6")
}

func TestCleanup(t *testing.T) {
	h := newHost(t)
	// What the programs make by themselves stays.
	for _, kind := range []string{"nft", "legacy"} {
		h.Tool("iptables-"+kind, "-t nat -S")
		h.Tool("iptables-"+kind, "-t filter -S")
	}
	h.foreign()
	before := h.state()
	h.ours()
	full := h.state()

	dry := h.options
	dry.DryRun = true
	out, err := h.run(dry)
	golden.Equal(t, out, "testdata/dry_run.txt")
	if err != nil || h.state() != full {
		t.Errorf("a dry run: %v\n%s", err, h.state())
	}
	out, err = h.run(h.options)
	golden.Equal(t, out, "testdata/cleanup.txt")
	if err != nil {
		t.Error(err)
	}
	if after := h.state(); after != before {
		t.Errorf("got\n%s\nwant\n%s", after, before)
	}
	out, err = h.run(h.options)
	if !strings.Contains(out, "nothing to remove") || err != nil {
		t.Errorf("the second time: %v\n%s", err, out)
	}
}

func TestCleanupOfCNI(t *testing.T) {
	h := newHost(t)
	h.foreign()
	before := h.state()
	h.ours()
	h.AddBridge("cni0", "10.244.1.1/24")
	h.AddVeth("vethpod", "inpod")
	h.IP("link set vethpod master cni0")
	h.write(h.options.DataDir+"/networks/cbr0/10.244.1.2", "x")
	h.write(h.options.DataDir+"/flannel/abc", "{}")
	h.write(h.options.DataDir+"/results/cbr0-abc-eth0", "{}")
	h.write(h.options.BinDir+"/flannel", "x")
	o := h.options
	if _, err := h.run(o); err != nil {
		t.Error(err)
	}
	if !h.HasLink("cni0") || !h.HasLink("vethpod") {
		t.Error("pods are cut off without -cni")
	}
	o.CNI = true
	if _, err := h.run(o); err != nil {
		t.Error(err)
	}
	if after := h.state(); after != before {
		t.Errorf("got\n%s\nwant\n%s", after, before)
	}
}

// The name of a network is part of a path.
func TestNameOfANetworkIsAName(t *testing.T) {
	for name, want := range map[string]string{"mine": "mine", "": "cbr0", ".": "cbr0", "..": "cbr0", "a/b": "cbr0", "../x": "cbr0"} {
		path := filepath.Join(t.TempDir(), "10-flannel.conflist")
		if err := os.WriteFile(path, fmt.Appendf(nil, `{"name": %q}`, name), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := networkName(path); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}

func TestCleanupWhileADaemonOfOursRuns(t *testing.T) {
	h := newHost(t)
	h.ours()
	h.Do(func() {
		lock, err := kernel.LockInstance(h.options.LockDir, "x")
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { lock.Close() })
	})
	out, err := h.run(h.options)
	if !errors.Is(err, ErrRunning) || out != "" {
		t.Errorf("got %v\n%s", err, out)
	}
	if !h.HasLink("flannel.1") {
		t.Error("something was removed")
	}
	o := h.options
	o.Force = true
	if _, err := h.run(o); err != nil || h.HasLink("flannel.1") {
		t.Errorf("with force: %v", err)
	}
}

// TestCleanupWhileFlannelRuns runs another program under flannel's name.
func TestCleanupWhileFlannelRuns(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	h, other := newHost(t), newHost(t)
	var cmd *exec.Cmd
	h.Do(func() {
		cmd = &exec.Cmd{Path: sleep, Args: []string{"/opt/bin/flanneld"}}
		cmd.Args = append(cmd.Args, "--", "300")
		err = cmd.Start()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	eventually.Says(t, func() (string, bool) {
		_, err := h.run(h.options)
		return "no daemon is seen", errors.Is(err, ErrRunning)
	})
	if _, err := other.run(other.options); err != nil {
		t.Errorf("in another network: %v", err)
	}
}

func TestDaemonsByTheirCommandLine(t *testing.T) {
	for line, want := range map[string]bool{
		"/opt/bin/flanneld\x00--ip-masq\x00": true,
		"flanneld\x00":                       true,
		"flanneld\x00cleanup\x00-force\x00":  false,
		"/bin/sh\x00flanneld\x00":            false,
		"":                                   false,
	} {
		if got := isDaemon([]byte(line)); got != want {
			t.Errorf("%q: got %t", line, got)
		}
	}
}
