// Package doctor tests what flanneld doctor reports on hosts on which something is
// wrong, and that it reports nothing on healthy ones.
package doctor

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

var built = sync.OnceValues(func() (lab.Binaries, error) { return lab.BuildBinaries() })

// newLab returns a lab in which flanneld is ready on all hosts, each with a pod.
func newLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	var err error
	o.Binaries, err = built()
	lab.Must(t, err)
	l := lab.ForTest(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lab.Must(t, l.Up(ctx))
	return l
}

// examine runs the command on a host and returns what it prints, and its exit code.
func examine(t *testing.T, h *lab.Host, args ...string) (string, int) {
	t.Helper()
	b, err := built()
	lab.Must(t, err)
	out, err := h.Exec(t.Context(), append([]string{b.Flanneld, "doctor"}, args...)...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out, exit.ExitCode()
	}
	lab.Must(t, err)
	return out, 0
}

func sh(t *testing.T, h *lab.Host, script string) {
	t.Helper()
	out, err := h.Exec(t.Context(), "sh", "-ec", script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// healthy waits for a doctor that finds nothing: a daemon may be busy for a moment.
func healthy(t *testing.T, h *lab.Host) {
	t.Helper()
	eventually.Says(t, func() (string, bool) {
		out, code := examine(t, h)
		return out, code == 0
	})
}

func TestHealthyHosts(t *testing.T) {
	for name, o := range map[string]lab.Options{
		"vxlan":                {Hosts: 3},
		"vxlan, both families": {Hosts: 3, Families: lab.Dual},
		"vxlan on demand":      {Hosts: 3, Backend: `{"Type": "vxlan", "OnDemand": true}`},
		"vxlan, direct":        {Hosts: 3, Links: 2, Backend: `{"Type": "vxlan", "DirectRouting": true}`},
		"host-gw":              {Hosts: 3, Families: lab.Dual, Backend: `{"Type": "host-gw"}`},
		"udp":                  {Hosts: 3, Backend: `{"Type": "udp"}`},
		"alloc":                {Hosts: 2, Backend: `{"Type": "alloc"}`},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, o)
			for _, h := range l.Hosts {
				out, code := examine(t, h)
				if code != 0 || !strings.Contains(out, "nothing found") {
					t.Errorf("%s: exit code %d\n%s", h.Name, code, out)
				}
			}
		})
	}
}

// trouble is something that is wrong with a host.
type trouble struct {
	name, breaks, mends string
	// says are words of the report.
	says []string
}

// run breaks and mends, and looks at what is reported about it.
func (tt trouble) run(t *testing.T, h *lab.Host) {
	t.Run(tt.name, func(t *testing.T) {
		defer healthy(t, h)
		defer sh(t, h, tt.mends)
		sh(t, h, tt.breaks)
		eventually.Says(t, func() (string, bool) {
			out, code := examine(t, h)
			for _, words := range tt.says {
				if !strings.Contains(out, words) {
					return "lacks " + words + "\n" + out, false
				}
			}
			return out, code == 1
		})
	})
}

func TestTroubles(t *testing.T) {
	// Otherwise the daemon accepts pods' packets in legacy iptables too before
	// doctor has seen that they are dropped.
	l := newLab(t, lab.Options{Hosts: 2, Flags: []string{"--iptables-resync=3600"}})
	h, other := l.Hosts[0], l.Hosts[1]
	s, err := other.Subnet()
	lab.Must(t, err)
	peer := s[0].Addr().String()
	mine, err := h.Subnet()
	lab.Must(t, err)
	self := mine[0].Addr().Next().String()
	for _, tt := range []trouble{
		{
			"a stale route of another plugin", "ip route add PEER/25 via 172.31.1.1 proto static", "ip route del PEER/25",
			[]string{"routes: packets for PEER/24 (at 172.31.1.12) take a route of others", "Run: ip route del PEER/25 via 172.31.1.1 dev eth0 proto static\n"},
		},
		{
			"a route of others to all of a peer's subnet", "ip route add PEER/24 via 172.31.1.1 proto static", "ip route del PEER/24 via 172.31.1.1",
			[]string{"peers: PEER/24 (", "the route is taken by another", "Run: ip route del PEER/24 proto 4 metric 0\n"},
		},
		{
			"an address of this host in a peer's subnet", "ip link add eth9 type veth peer name away; ip addr add PEER/26 dev eth9; ip link set eth9 up", "ip link del eth9",
			[]string{"routes: packets for PEER/24 (at 172.31.1.12) go to eth9: its address PEER/26 overlaps the overlay network 10.244.0.0/16\n", "Run: ip address show dev eth9; "},
		},
		{
			"Docker's bridge in the subnet of the pods", "ip link add docker0 type bridge; ip addr add SELF/24 dev docker0", "ip link del docker0",
			[]string{"bridge: docker0 has SELF/24, an address of this node's subnet", "Run: set another bip in /etc/docker/daemon.json"},
		},
		{
			"a blackhole", "ip route add blackhole PEER/26", "ip route del blackhole PEER/26",
			[]string{"are dropped by a route", "Run: ip route del blackhole PEER/26 proto boot\n"},
		},
		{
			"a rule of another plugin", "ip route add default via 172.31.1.1 table 220; ip rule add from all lookup 220 pref 220",
			"ip rule del pref 220; ip route flush table 220",
			[]string{"take a route of others: 0.0.0.0/0 via 172.31.1.1 dev eth0 table 220", "ip rule | grep 'lookup 220'"},
		},
		{
			"a drop on the device", "iptables-nft -I FORWARD -i flannel.1 -j DROP", "iptables-nft -F FORWARD",
			[]string{"filter: chain FORWARD of table ip filter drops packets to pods that come in by flannel.1", "Run: iptables-nft -I FORWARD -i flannel.1"},
		},
		{
			"the backend's port is dropped", "iptables-nft -I INPUT -p udp --dport 8472 -j DROP", "iptables-nft -F INPUT",
			[]string{"chain INPUT of table ip filter drops the packets of flannel.1 from 172.31.1.12 on UDP port 8472", "Run: iptables-nft -I INPUT -p udp --dport 8472 -j ACCEPT"},
		},
		{
			"all packets to this host are dropped by legacy iptables", "iptables-legacy -P INPUT DROP", "iptables-legacy -P INPUT ACCEPT",
			[]string{"chain INPUT of iptables-legacy drops the packets of flannel.1", "Run: iptables-legacy -I INPUT -p udp --dport 8472 -j ACCEPT"},
		},
		{
			"Docker's policy in legacy iptables", "iptables-legacy -P FORWARD DROP", "iptables-legacy -P FORWARD ACCEPT",
			[]string{"chain FORWARD of iptables-legacy drops forwarded packets of 10.244.0.0/16", "Run: iptables-legacy -I FORWARD -s 10.244.0.0/16 -j ACCEPT"},
		},
		{
			"Docker's policy in a table of nftables", "nft add table inet x; nft add chain inet x f '{ type filter hook forward priority 10 ; policy drop ; }'", "nft delete table inet x",
			[]string{"chain f of table inet x drops forwarded packets of 10.244.0.0/16", "Run: nft insert rule inet x f ip saddr 10.244.0.0/16 accept"},
		},
		{
			"forwarding is off", "sysctl -wq net.ipv4.ip_forward=0", "sysctl -wq net.ipv4.ip_forward=1",
			[]string{"net.ipv4.ip_forward is 0", "Run: sysctl -w net.ipv4.ip_forward=1\n"},
		},
		{
			"forwarding is off on the device", "sysctl -wq net.ipv4.conf.flannel/1.forwarding=0", "sysctl -wq net.ipv4.conf.flannel/1.forwarding=1",
			[]string{"the host forwards no packets that come in by flannel.1", "Run: sysctl -w net.ipv4.conf.flannel/1.forwarding=1\n"},
		},
		{
			"strict check of source addresses, on a host with two uplinks",
			"ip link add eth9 type veth peer name away; ip addr add 198.51.100.1/24 dev eth9; ip link set eth9 up; sysctl -wq net.ipv4.conf.eth0.rp_filter=1",
			"ip link del eth9; sysctl -wq net.ipv4.conf.eth0.rp_filter=0",
			[]string{"net.ipv4.conf.eth0.rp_filter is 1", "Run: sysctl -w net.ipv4.conf.eth0.rp_filter=2\n"},
		},
		{
			"a former address of the bridge", "ip addr del SELF/24 dev cni0; ip addr add 10.244.250.1/24 dev cni0", "ip addr add SELF/24 dev cni0; ip addr del 10.244.250.1/24 dev cni0",
			[]string{"bridge: cni0 has 10.244.250.1/24, but this node's subnet gives it SELF/24"},
		},
		{
			"pods are older than the MTU", "ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500",
			[]string{"mtu: 1 interfaces of pods on cni0 have an MTU of more than 1350"},
		},
	} {
		replace := strings.NewReplacer("PEER", peer, "SELF", self)
		tt.breaks, tt.mends = replace.Replace(tt.breaks), replace.Replace(tt.mends)
		for i := range tt.says {
			tt.says[i] = replace.Replace(tt.says[i])
		}
		tt.run(t, h)
	}
	t.Run("the other host drops the tunnel's packets", func(t *testing.T) {
		defer sh(t, other, "iptables-nft -F INPUT")
		sh(t, other, "iptables-nft -I INPUT -p udp --dport 8472 -j DROP")
		eventually.Says(t, func() (string, bool) {
			out, code := examine(t, h)
			return out, code == 1 && strings.Contains(out, "overlay: ") && strings.Contains(out, "no answer") &&
				strings.Contains(out, "Run: iptables -S INPUT; nft list ruleset") && strings.Contains(out, "172.31.1.12") &&
				strings.Contains(out, "must accept UDP port 8472 from ")
		})
	})
	healthy(t, h)
	t.Run("another plugin's configuration comes first", func(t *testing.T) {
		sh(t, h, "mkdir -p /run/cni; touch /run/cni/05-cilium.conflist /run/cni/10-flannel.conflist")
		out, code := examine(t, h, "-cni-conf-dir=/run/cni")
		if code != 1 || !strings.Contains(out, "05-cilium.conflist is ahead of 10-flannel.conflist") ||
			!strings.Contains(out, "Run: mv /run/cni/05-cilium.conflist /run/cni/05-cilium.conflist.disabled\n") {
			t.Errorf("exit code %d\n%s", code, out)
		}
	})
	t.Run("the daemon does not run", func(t *testing.T) {
		lab.Must(t, h.Stop())
		out, code := examine(t, h)
		if code != 1 || !strings.Contains(out, "daemon: flanneld does not run") {
			t.Errorf("exit code %d\n%s", code, out)
		}
		sh(t, h, "rm /run/flannel/subnet.env")
		out, code = examine(t, h)
		if code != 1 || !strings.Contains(out, "/run/flannel/subnet.env is missing: flanneld does not run") {
			t.Errorf("exit code %d\n%s", code, out)
		}
	})
}
