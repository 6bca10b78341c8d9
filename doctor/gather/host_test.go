package gather

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flannel/backend"
	"flannel/backend/udp"
	"flannel/backend/vxlan"
	"flannel/doctor"
	"flannel/internal/testkit/assets"
	"flannel/internal/testkit/eventually"
	"flannel/internal/testkit/nstest"
	"flannel/kernel"
	"flannel/kernel/look"
)

// reportOf examines a host without a daemon and returns the report with its notes.
func reportOf(t *testing.T, ns *nstest.NS, o Options) string {
	t.Helper()
	var text bytes.Buffer
	ns.Do(func() { doctor.Examine("a", Gather(t.Context(), o), doctor.Checks()).WriteText(&text, true) })
	return text.String()
}

// hostOptions are those of a host with the subnet 10.244.1.0/28 in folders of its own.
func hostOptions(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	o := Default()
	o.Backends = backend.Table{udp.Type, vxlan.Type}
	o.SubnetFile, o.CNIConfDir, o.Reservations, o.LockDir = dir+"/subnet.env", dir, dir+"/networks", dir
	const text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/28\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
	if err := os.WriteFile(o.SubnetFile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return o
}

// reserve has host-local give an address to a container.
func reserve(t *testing.T, dir, container string) {
	t.Helper()
	program, err := assets.Path("host-local")
	if err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "cbr0", "type": "bridge", "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.244.1.0/28"}]]}}`, dir)
	c := exec.Command(program)
	c.Stdin = strings.NewReader(conf)
	c.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID="+container, "CNI_NETNS=/none", "CNI_IFNAME=eth0", "CNI_PATH=/none")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestLeakedAddresses(t *testing.T) {
	ns := nstest.New(t)
	ns.AddBridge("cni0", "10.244.1.1/28")
	ns.AddVeth("pod", "pod-peer")
	o := hostOptions(t)
	check := func(name, words string, found bool) {
		t.Helper()
		out := reportOf(t, ns, o)
		if words == "" && strings.Contains(out, "addresses: ") || !strings.Contains(out, words) || found != strings.Contains(out, ". addresses: ") {
			t.Errorf("%s: want %q\n%s", name, words, out)
		}
	}
	for n := range 4 {
		reserve(t, o.Reservations, fmt.Sprint("container", n))
	}
	check("the plugin is at work", "", false)
	age := func() {
		files, _ := filepath.Glob(o.Reservations + "/cbr0/*")
		for _, file := range files {
			if err := os.Chtimes(file, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
				t.Error(err)
			}
		}
	}
	age()
	check("some are leaked", "Note: addresses: at least 2 containers that are gone still have addresses in "+o.Reservations+"/cbr0\n", false)
	for n := range 8 {
		reserve(t, o.Reservations, fmt.Sprint("more", n))
	}
	age()
	check("nearly none is left", "addresses: at least 10 containers that are gone still have addresses in "+o.Reservations+"/cbr0; of 13 addresses of 10.244.1.0/28 1 are free\n", true)
	freeLeaked(t, reportOf(t, ns, o), o.Reservations+"/cbr0")
	ns.DelLink("cni0")
	check("pods are attached in another way", "", false)
}

// freeLeaked runs the command of a report as a person copies it, with runtimes that
// answer in different ways.
func freeLeaked(t *testing.T, report, dir string) {
	t.Helper()
	_, command, _ := strings.Cut(report, "addresses: ")
	_, command, _ = strings.Cut(command, "Run: ")
	command, _, _ = strings.Cut(command, "\n")
	if !strings.HasPrefix(command, "pods=") {
		t.Fatalf("no command\n%s", report)
	}
	shell, err := exec.LookPath("dash")
	if err != nil {
		shell = "sh"
	}
	files := func() (names []string) {
		list, _ := os.ReadDir(dir)
		for _, e := range list {
			names = append(names, e.Name())
		}
		return names
	}
	run := func(crictl string) string {
		bin := t.TempDir()
		if crictl != "" {
			if err := os.WriteFile(bin+"/crictl", []byte("#!/bin/sh\n"+crictl+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		c := exec.Command(shell, "-c", command)
		c.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		out, _ := c.CombinedOutput()
		return string(out)
	}
	before := files()
	if !slices.Contains(before, "last_reserved_ip.0") {
		t.Fatalf("files %v", before)
	}
	for name, crictl := range map[string]string{"is missing": "", "fails": "echo container1; exit 1", "names no pod": ":"} {
		if out := run(crictl); !slices.Equal(files(), before) {
			t.Errorf("crictl %s: files %v\n%s", name, files(), out)
		}
	}
	fresh := dir + "/10.244.1.14"
	if err := os.WriteFile(fresh, []byte("starting\r\neth0"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := run("echo container1; echo more7")
	var kept []string
	for _, name := range files() {
		text, err := os.ReadFile(dir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		owner, _, _ := strings.Cut(string(text), "\r\n")
		if strings.HasPrefix(name, "10.") {
			name = owner
		}
		kept = append(kept, name)
	}
	slices.Sort(kept)
	if want := []string{"container1", "last_reserved_ip.0", "lock", "more7", "starting"}; !slices.Equal(kept, want) || strings.Count(out, "freed "+dir+"/10.244.1.") != 10 {
		t.Errorf("got %v, want %v\n%s", kept, want, out)
	}
}

// TestOverflowsAreRead compares with another place where the kernel shows them, in the
// first network namespace only.
func TestOverflowsAreRead(t *testing.T) {
	before, err := overflows()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/net/stat/arp_cache")
	if err != nil {
		return
	}
	after, err := overflows()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	column := slices.Index(strings.Fields(lines[0]), "table_fulls")
	var sum uint64
	for _, line := range lines[1:] { // one for each processor
		n, err := strconv.ParseUint(strings.Fields(line)[column], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	if sum < before[0] || sum > after[0] {
		t.Errorf("got %d to %d, the kernel shows %d", before[0], after[0], sum)
	}
}

func TestWrongChecksums(t *testing.T) {
	ns := nstest.New(t)
	ns.IP("link add flannel.1 type vxlan id 1 dstport 8472 local 127.0.0.1 nolearning")
	o := hostOptions(t)
	if out := reportOf(t, ns, o); strings.Contains(out, "checksums: ") {
		t.Errorf("got\n%s", out)
	}
	var before, after uint64
	count := func() (n uint64) {
		var err error
		ns.Do(func() { n, err = wrongChecksums() })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before = count()
	ns.Do(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err == nil {
			defer func() { _ = unix.Close(fd) }()
			syn := []byte{0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0x12, 0x34, 0, 0}
			err = unix.Sendto(fd, syn, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		}
		if err != nil {
			t.Error(err)
		}
	})
	eventually.True(t, "the kernel counts it", func() bool { after = count(); return after > before })
	facts := &doctor.Facts{Backends: backend.Table{vxlan.Type}, Host: look.Host{Links: look.Links{{Name: "flannel.1", Kind: kernel.KindVXLAN}}}, Checksums: doctor.Checksums{Before: before, After: after}}
	var text bytes.Buffer
	doctor.Examine("a", facts, only("checksums")).WriteText(&text, true)
	for _, words := range []string{
		"Note: checksums: 1 TCP segments with wrong checksums have come in while this ran, 1 since this host was started\n",
		"Run: ethtool -K flannel.1 tx-checksum-ip-generic off, on the node whose pods are not reached\n", "nothing found in 1 checks\n",
	} {
		if !strings.Contains(text.String(), words) {
			t.Errorf("lacks %q\n%s", words, &text)
		}
	}
}

func TestKubeProxyIsSeen(t *testing.T) {
	for name, commands := range map[string][]string{
		"iptables": {"iptables-nft -t nat -N KUBE-SERVICES"},
		"nftables": {"nft add table ip kube-proxy", "nft add chain ip kube-proxy services"},
		"ipvs":     {"ip link add kube-ipvs0 type bridge"},
		"none":     {"iptables-nft -t nat -N KUBE-MARK-MASQ", "nft add table ip x"},
	} {
		t.Run(name, func(t *testing.T) {
			ns := nstest.New(t)
			for _, command := range commands {
				tool, args, _ := strings.Cut(command, " ")
				ns.Tool(tool, args)
			}
			var f *doctor.Facts
			o := hostOptions(t)
			ns.Do(func() { f = Gather(t.Context(), o) })
			if f.KubeProxy != (name != "none") {
				t.Errorf("got %v", f.KubeProxy)
			}
		})
	}
}
