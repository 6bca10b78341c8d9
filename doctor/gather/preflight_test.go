package gather

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"flannel/backend"
	"flannel/backend/udp"
	"flannel/backend/vxlan"
	"flannel/doctor"
	"flannel/internal/testkit/nstest"
)

// vxlanWanted is flannel's usual configuration.
func vxlanWanted() *doctor.Wanted {
	return &doctor.Wanted{
		File: "net-conf.json", Network: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		Backend: vxlan.Type, Encapsulation: vxlan.Config{VNI: 1}.Encapsulation(),
	}
}

// preflight looks at a host before an installation, and returns the report and its
// exit code.
func preflight(t *testing.T, ns *nstest.NS, w *doctor.Wanted) (string, int) {
	t.Helper()
	o := Default()
	o.Backends, o.Wanted, o.CNIConfDir = backend.Table{udp.Type, vxlan.Type}, w, t.TempDir()
	return examineWith(t, ns, o)
}

func examineWith(t *testing.T, ns *nstest.NS, o Options) (string, int) {
	t.Helper()
	var text bytes.Buffer
	var code int
	ns.Do(func() {
		r := doctor.Examine("a", Gather(t.Context(), o), doctor.Preflight())
		r.WriteText(&text, true)
		code = r.ExitCode()
	})
	return text.String(), code
}

func TestPreflight(t *testing.T) {
	for _, tt := range []struct {
		name     string
		commands []string
		want     func(*doctor.Wanted)
		says     []string // with an empty list nothing is found
	}{
		{"a fresh host", nil, nil, nil},
		{"Docker", []string{"ip link add docker0 type bridge", "ip addr add 172.17.0.1/16 dev docker0", "ip link set docker0 up", "iptables-nft -P FORWARD DROP"}, nil, nil},
		{"flannel", []string{
			"ip link add flannel.1 type vxlan id 1 dstport 8472 local 192.0.2.1 nolearning", "ip addr add 10.244.1.0/32 dev flannel.1", "ip link set flannel.1 up",
			"ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink", "ip link add cni0 type bridge", "ip addr add 10.244.1.1/24 dev cni0", "ip link set cni0 up",
		}, nil, nil},
		{"another overlay with another VNI", []string{"ip link add vx7 type vxlan id 7 dstport 8472 local 192.0.2.1", "ip link set vx7 up"}, nil, nil},
		{"our VNI", []string{"ip link add vx1 type vxlan id 1 dstport 8472 local 192.0.2.1"}, nil, []string{
			"port: device vx1 has VNI 1 on UDP port 8472\n", "Run: ip link del vx1, if its plugin is gone; or set another Backend.VNI or Backend.Port on all nodes\n",
		}},
		{"Cilium's device", []string{"ip link add cilium_vxlan type vxlan external dstport 8472", "ip link set cilium_vxlan up"}, nil, []string{
			"port: device cilium_vxlan has UDP port 8472 and does not share it\n",
		}},
		{"a vxlan device on udp's port", []string{"ip link add vx7 type vxlan id 7 dstport 8285 local 192.0.2.1", "ip link set vx7 up"}, func(w *doctor.Wanted) {
			w.Backend, w.Encapsulation = udp.Type, backend.Encapsulation{Port: 8285}
		}, []string{"port: device vx7 has UDP port 8285\n"}},
		{"a drop of the port", []string{"iptables-nft -A INPUT -p udp --dport 8472 -j DROP"}, nil, []string{
			"filter: chain INPUT of table ip filter drops the packets of vxlan on UDP port 8472 (rule 1: -p udp --dport 8472 -j DROP)\n", "Run: iptables-nft -I INPUT -p udp --dport 8472 -j ACCEPT\n",
		}},
		{"a policy behind an accept of lo", []string{"ip route add default via 192.0.2.254", "iptables-nft -A INPUT -i lo -j ACCEPT", "iptables-nft -P INPUT DROP"}, nil, []string{
			"1. filter: chain INPUT of table ip filter drops the packets of vxlan on UDP port 8472 (its policy is drop)\n", "Run: iptables-nft -I INPUT -i eth0 -p udp --dport 8472 -j ACCEPT\n",
		}},
		{"a table of nftables", []string{"nft add table inet x", "nft add chain inet x f { type filter hook forward priority 10 ; policy drop ; }"}, nil, []string{
			"filter: chain f of table inet x drops forwarded packets of 10.244.0.0/16 (its policy is drop)\n",
		}},
		{"what Calico has left", []string{
			"ip link add vxlan.calico type vxlan id 4096 dstport 4789 local 192.0.2.1", "ip addr add 10.244.9.0/32 dev vxlan.calico", "ip link set vxlan.calico up",
			"ip route add 10.244.5.0/26 via 192.0.2.7 proto bird", "ip route add blackhole 10.244.9.0/26 proto 80",
		}, nil, []string{
			"leftovers: vxlan.calico of Calico has the address 10.244.9.0/32 inside the network\n", "Run: ip link del vxlan.calico, if its plugin is gone\n",
			"leftovers: a route of Calico is inside the network: 10.244.5.0/26 via 192.0.2.7 dev eth0 proto bird\n",
			"leftovers: a route of Calico is inside the network: blackhole 10.244.9.0/26 proto 80\n", "Run: ip route del blackhole 10.244.9.0/26 proto 80\n",
		}},
		{"Canal", []string{"ip link add cali0123456789a type veth peer name pod", "ip link set cali0123456789a up", "ip route add 10.244.1.5/32 dev cali0123456789a"}, nil, nil},
		{"a rule for the network", []string{"ip rule add from 10.9.0.0/16 lookup 78 pref 100", "ip rule add from 10.244.1.0/24 lookup 77 pref 100"}, nil, []string{
			"leftovers: a rule sends packets of the network to another table: 100: from 10.244.1.0/24 lookup 77\n", "Run: ip rule del pref 100 from 10.244.1.0/24 lookup 77\n",
		}},
		{"a rule for others", []string{"ip rule add from 10.9.0.0/16 lookup 77 pref 100", "ip rule add fwmark 0x200/0xf00 lookup 2004 pref 9"}, nil, nil},
		{"a configuration that is wrong", nil, func(w *doctor.Wanted) {
			w.Err, w.Unknown = errors.New(`Backend.Type: "wireguard" is not allowed`), []string{`key "Networks" has no effect`}
		}, []string{"configuration: Backend.Type: \"wireguard\" is not allowed\n", "configuration: key \"Networks\" has no effect\n", "Run: correct net-conf.json\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns := nstest.New(t)
			ns.AddUplink("eth0", "192.0.2.1/24")
			for _, command := range tt.commands {
				tool, args, _ := strings.Cut(command, " ")
				ns.Tool(tool, args)
			}
			w := vxlanWanted()
			if tt.want != nil {
				tt.want(w)
			}
			out, code := preflight(t, ns, w)
			if want := min(len(tt.says), 1); code != want {
				t.Errorf("exit code %d\n%s", code, out)
			}
			for _, words := range tt.says {
				if !strings.Contains(out, words) {
					t.Errorf("lacks %q\n%s", words, out)
				}
			}
		})
	}
}

func TestPreflightNamesTheProgramThatHasThePort(t *testing.T) {
	ns := nstest.New(t)
	ns.Do(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			t.Cleanup(func() { _ = unix.Close(fd) })
			err = unix.Bind(fd, &unix.SockaddrInet4{Port: 8472})
		}
		if err != nil {
			t.Error(err)
		}
	})
	out, code := preflight(t, ns, vxlanWanted())
	if code != 1 || !strings.Contains(out, "port: gather.test has UDP port 8472 (ipv4)\n") || !strings.Contains(out, "ss -ulnp sport = :8472 shows who") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

func TestPreflightWithLegacyIPTables(t *testing.T) {
	ns := nstest.New(t)
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
	ns.Tool("iptables-legacy", "-P FORWARD DROP")
	const drops = "filter: chain FORWARD of iptables-legacy drops forwarded packets of 10.244.0.0/16 (its policy is drop); flanneld "
	if out, code := preflight(t, ns, vxlanWanted()); code != 0 || !strings.Contains(out, "Note: "+drops+"puts a rule there that accepts them\n") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	t.Setenv("PATH", t.TempDir())
	if out, code := preflight(t, ns, vxlanWanted()); code != 1 || !strings.Contains(out, "1. "+drops+"accepts them there only where it has iptables-legacy\n") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

func TestPreflightSeesOtherPluginsFiles(t *testing.T) {
	ns := nstest.New(t)
	o := Default()
	o.Wanted, o.CNIConfDir = vxlanWanted(), t.TempDir()
	put := func(name string) {
		if err := os.WriteFile(filepath.Join(o.CNIConfDir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("00-multus.conf")
	put("100-crio-bridge.conf")
	put("87-podman-bridge.conflist")
	if out, code := examineWith(t, ns, o); code != 0 {
		t.Errorf("with files that come later: exit code %d\n%s", code, out)
	}
	put("10-calico.conflist")
	out, code := examineWith(t, ns, o)
	if code != 1 || !strings.Contains(out, "cni-conf: 10-calico.conflist is ahead of 10-flannel.conflist in "+o.CNIConfDir) {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

func TestWhatTheKernelOffers(t *testing.T) {
	ns := nstest.New(t)
	ns.Do(func() {
		if got, err := hasVXLAN(); got != doctor.Present || err != nil {
			t.Errorf("vxlan: got %q, %v", got, err)
		}
		if got, err := hasTUN(); got != doctor.Present || err != nil {
			t.Errorf("TUN: got %q, %v", got, err)
		}
		if got := hasPacketFilter(); got != doctor.Present {
			t.Errorf("packet filter: got %q", got)
		}
	})
	if ns.HasLink("flannel.none") {
		t.Error("a device was made")
	}
	missing := doctor.Kernel{VXLAN: doctor.Absent, PacketFilter: doctor.Absent, Lacks: []string{"NET_ADMIN"}}
	r := doctor.Examine("a", &doctor.Facts{Wanted: vxlanWanted(), Kernel: missing}, doctor.Preflight())
	var text bytes.Buffer
	r.WriteText(&text, false)
	for _, words := range []string{
		"this kernel has no vxlan devices\n", "this kernel has neither nf_tables nor legacy iptables\n", "Run: modprobe vxlan;", "this process lacks NET_ADMIN\n",
	} {
		if !strings.Contains(text.String(), words) {
			t.Errorf("lacks %q\n%s", words, &text)
		}
	}
}
