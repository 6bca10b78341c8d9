package doctor

import (
	"fmt"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

// trouble is something that is wrong with a host.
type trouble struct {
	name, breaks, mends string
	// there breaks and mends on the other host.
	there bool
	// says are words of the report, silent are words that it lacks.
	says, silent []string
}

// scene is two hosts, of which the first is examined.
type scene struct {
	h, other *lab.Host
	// fill replaces what stands for addresses of theirs.
	fill *strings.Replacer
}

// newScene replaces SUBNET and VTEP by the other host's subnet and its network address,
// ADDR by the other host's address, SELF by the first address of the examined host's
// subnet and POD by another one; with a 6 behind them, by those of IPv6.
func newScene(t *testing.T, l *lab.Lab) scene {
	t.Helper()
	s := scene{h: l.Hosts[0], other: l.Hosts[1]}
	theirs, err := s.other.Subnet()
	lab.Must(t, err)
	ours, err := s.h.Subnet()
	lab.Must(t, err)
	var words []string
	for f, suffix := range (ipfam.Pair[string]{"", "6"}).Each() {
		if subnet := theirs[f]; subnet.IsValid() {
			words = append([]string{
				"SUBNET" + suffix, subnet.String(), "VTEP" + suffix, subnet.Addr().String(),
				"SELF" + suffix, ours[f].Addr().Next().String(), "POD" + suffix, ours[f].Addr().Next().Next().Next().Next().String(), "ADDR" + suffix, s.other.Addr(f).String(),
			}, words...)
		}
	}
	s.fill = strings.NewReplacer(words...)
	return s
}

// run breaks and mends, and looks at what is reported.
func (s scene) run(t *testing.T, list ...trouble) {
	t.Helper()
	for _, tt := range list {
		t.Run(tt.name, func(t *testing.T) {
			at := s.h
			if tt.there {
				at = s.other
			}
			defer healthy(t, s.h)
			defer sh(t, at, s.fill.Replace(tt.mends))
			sh(t, at, s.fill.Replace(tt.breaks))
			eventually.Says(t, func() (string, bool) {
				out, code := examine(t, s.h)
				for _, words := range tt.says {
					if words = s.fill.Replace(words); !strings.Contains(out, words) {
						return "lacks " + words + "\n" + out, false
					}
				}
				for _, words := range tt.silent {
					if words = s.fill.Replace(words); strings.Contains(out, words) {
						return "has " + words + "\n" + out, false
					}
				}
				return out, code == 1
			})
		})
	}
}

func TestTroubles(t *testing.T) {
	// Otherwise the daemon accepts pods' packets in legacy iptables too before
	// doctor has seen that they are dropped.
	l := newLab(t, lab.Options{Hosts: 2, Flags: []string{"--iptables-resync=3600"}})
	s := newScene(t, l)
	s.run(t, []trouble{
		{
			name: "a stale route of another plugin", breaks: "ip route add VTEP/25 via 172.31.1.1 proto static", mends: "ip route del VTEP/25",
			says: []string{"routes: packets for SUBNET (at ADDR) take a route of others", "Run: ip route del VTEP/25 via 172.31.1.1 dev eth0 proto static\n"},
		},
		{
			name: "a route of others to all of a peer's subnet", breaks: "ip route add SUBNET via 172.31.1.1 proto static", mends: "ip route del SUBNET via 172.31.1.1",
			says: []string{"peers: SUBNET (", "the route is taken by another", "Run: ip route del SUBNET proto 4 metric 0\n"},
		},
		{
			name:   "an address of this host in a peer's subnet",
			breaks: "ip link add eth9 type veth peer name away; ip addr add VTEP/26 dev eth9; ip link set eth9 up", mends: "ip link del eth9",
			says: []string{"routes: packets for SUBNET (at ADDR) go to eth9: its address VTEP/26 overlaps the overlay network 10.244.0.0/16\n", "Run: ip address show dev eth9; "},
		},
		{
			name: "Docker's bridge in the subnet of the pods", breaks: "ip link add docker0 type bridge; ip addr add SELF/24 dev docker0", mends: "ip link del docker0",
			says: []string{"bridge: docker0 has SELF/24, an address of this node's subnet", "Run: set another bip in /etc/docker/daemon.json"},
		},
		{
			name: "a blackhole", breaks: "ip route add blackhole VTEP/26", mends: "ip route del blackhole VTEP/26",
			says: []string{"are dropped by a route", "Run: ip route del blackhole VTEP/26 proto boot\n"},
		},
		{
			name:   "a rule of another plugin",
			breaks: "ip route add default via 172.31.1.1 table 220; ip rule add from all lookup 220 pref 220",
			mends:  "ip rule del pref 220; ip route flush table 220",
			says:   []string{"take a route of others: 0.0.0.0/0 via 172.31.1.1 dev eth0 table 220", "Run: ip rule add to 10.244.0.0/16 lookup main pref 219\n"},
		},
		{
			name: "a drop on the device", breaks: "iptables-nft -I FORWARD -i flannel.1 -j DROP", mends: "iptables-nft -F FORWARD",
			says: []string{"filter: chain FORWARD of table ip filter drops packets to pods that come in by flannel.1", "Run: iptables-nft -I FORWARD -i flannel.1"},
		},
		{
			name: "all packets to this host are dropped by legacy iptables", breaks: "iptables-legacy -P INPUT DROP", mends: "iptables-legacy -P INPUT ACCEPT",
			says: []string{"chain INPUT of iptables-legacy drops the packets of flannel.1", "Run: iptables-legacy -I INPUT -i eth0 -p udp --dport 8472 -j ACCEPT"},
		},
		{
			name: "Docker's policy in legacy iptables", breaks: "iptables-legacy -P FORWARD DROP", mends: "iptables-legacy -P FORWARD ACCEPT",
			says: []string{"chain FORWARD of iptables-legacy drops forwarded packets of 10.244.0.0/16", "Run: iptables-legacy -I FORWARD -s 10.244.0.0/16 -j ACCEPT"},
		},
		{
			name:   "Docker's policy in a table of nftables",
			breaks: "nft add table inet x; nft add chain inet x f '{ type filter hook forward priority 10 ; policy drop ; }'", mends: "nft delete table inet x",
			says: []string{"chain f of table inet x drops forwarded packets of 10.244.0.0/16", "Run: nft insert rule inet x f ip saddr 10.244.0.0/16 accept"},
		},
		{
			name: "forwarding is off", breaks: "sysctl -wq net.ipv4.ip_forward=0", mends: "sysctl -wq net.ipv4.ip_forward=1",
			says: []string{"net.ipv4.ip_forward is 0", "Run: sysctl -w net.ipv4.ip_forward=1\n"},
		},
		{
			name: "forwarding is off on the device", breaks: "sysctl -wq net.ipv4.conf.flannel/1.forwarding=0", mends: "sysctl -wq net.ipv4.conf.flannel/1.forwarding=1",
			says: []string{"the host forwards no packets that come in by flannel.1", "Run: sysctl -w net.ipv4.conf.flannel/1.forwarding=1\n"},
		},
		{
			name:   "strict check of source addresses, and a peer is reached by another interface",
			breaks: "ip link add eth9 type veth peer name away; ip addr add 198.51.100.1/24 dev eth9; ip link set eth9 up; ip route add ADDR dev eth9; sysctl -wq net.ipv4.conf.eth0.rp_filter=1",
			mends:  "ip link del eth9; sysctl -wq net.ipv4.conf.eth0.rp_filter=0",
			says:   []string{"net.ipv4.conf.eth0.rp_filter is 1", "Run: sysctl -w net.ipv4.conf.eth0.rp_filter=2\n"},
		},
		{
			name:   "a former address of the bridge",
			breaks: "ip addr del SELF/24 dev cni0; ip addr add 10.244.250.1/24 dev cni0", mends: "ip addr add SELF/24 dev cni0; ip addr del 10.244.250.1/24 dev cni0",
			says: []string{"bridge: cni0 has 10.244.250.1/24, but this node's subnet gives it SELF/24"},
		},
		{
			name:   "another plugin's address of the bridge",
			breaks: "ip addr del SELF/24 dev cni0; ip addr add 192.168.77.1/24 dev cni0", mends: "ip addr add SELF/24 dev cni0; ip addr del 192.168.77.1/24 dev cni0",
			says: []string{"bridge: cni0 has 192.168.77.1/24, but this node's subnet gives it SELF/24"},
		},
		{
			name: "pods are older than the MTU", breaks: "ip link set eth0 mtu 1400", mends: "ip link set eth0 mtu 1500",
			says: []string{"mtu: 1 interfaces of pods on cni0 have an MTU of more than 1350"},
		},
		{
			name: "pods have the MTU of the uplink", breaks: "ip link set veth1 mtu 1500", mends: "ip link set veth1 mtu 1450",
			says: []string{"mtu: 1 interfaces of pods on cni0 have an MTU of more than 1450, for example veth1 with 1500"},
		},
	}...)
	s.run(t, vxlanTunnel.troubles(ipfam.V4)...)
	h := s.h
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

// TestTroublesOfIPv6 has them in one family, alone and beside IPv4, which works.
func TestTroublesOfIPv6(t *testing.T) {
	for name, families := range map[string]lab.Families{"alone": lab.IPv6, "dual stack": lab.Dual} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, newLab(t, lab.Options{Hosts: 2, Families: families}))
			for f := range (ipfam.Pair[int]{}).Each() {
				if families.Has(f) {
					s.run(t, vxlanTunnel.troubles(f)...)
				}
			}
		})
	}
}

func TestTroublesOfUDP(t *testing.T) {
	s := newScene(t, newLab(t, lab.Options{Hosts: 2, Families: lab.Dual, Backend: `{"Type": "udp"}`}))
	s.run(t, trouble{
		name: "a pod without route",
		breaks: "ip netns add cni-pod; ip link add veth9 mtu 1400 master cni0 type veth peer name eth0 mtu 1400 netns cni-pod; ip link set veth9 up; " +
			"ip -n cni-pod addr add POD/24 dev eth0; ip -n cni-pod link set eth0 up",
		mends: "ip netns del cni-pod",
		says: []string{
			"pods: the pod POD has no route to pods of other nodes, such as ", ": network is unreachable\n",
			"Run: nsenter --net=/run/netns/cni-pod ip route replace 10.244.0.0/16 via SELF dev eth0\n",
		},
	})
	for f := range (ipfam.Pair[int]{}).Each() {
		iptables, subnet := iptablesOf[f], ipfam.Pair[string]{"10.244.0.0/16", "fd00:10:244::/48"}[f]
		s.run(t, trouble{
			name: "forwarded packets are dropped, " + f.Name(), breaks: iptables + " -I FORWARD -s " + subnet + " -j DROP", mends: iptables + " -F FORWARD",
			says: []string{"filter: chain FORWARD of table " + tableOf[f] + " drops forwarded packets of " + subnet, "Run: " + iptables + " -I FORWARD -s " + subnet + " -j ACCEPT"},
		}, trouble{
			name: "a drop on the device, " + f.Name(), breaks: iptables + " -I FORWARD -i flannel0 -j DROP", mends: iptables + " -F FORWARD",
			says: []string{"filter: chain FORWARD of table " + tableOf[f] + " drops packets to pods that come in by flannel0", "Run: " + iptables + " -I FORWARD -i flannel0 "},
		})
		s.run(t, udpTunnel.troubles(f)...)
	}
}

var (
	iptablesOf = ipfam.Pair[string]{"iptables-nft", "ip6tables-nft"}
	tableOf    = ipfam.Pair[string]{"ip filter", "ip6 filter"}
)

// tunnel is what the underlay sees of a backend.
type tunnel struct {
	port    int
	devices ipfam.Pair[string]
	// narrow is the remedy for an underlay with an MTU of 1400, in a lab of both families.
	narrow ipfam.Pair[string]
}

var (
	vxlanTunnel = tunnel{8472, ipfam.Pair[string]{"flannel.1", "flannel-v6.1"}, ipfam.Pair[string]{"set Backend.MTU to 1400", "set Backend.MTU to 1400"}}
	// One device leaves room for the headers of IPv6, which IPv4 does not need.
	udpTunnel = tunnel{8285, ipfam.Pair[string]{"flannel0", "flannel0"}, ipfam.Pair[string]{
		"set the MTU of the nodes' uplinks to 1420", "set the MTU of the nodes' uplinks to 1400",
	}}
)

// troubles are those of the underlay in one family; the other one works.
func (b tunnel) troubles(f ipfam.Family) []trouble {
	suffixes := ipfam.Pair[string]{"", "6"}
	there := "SUBNET" + suffixes[f] + " at ADDR" + suffixes[f] + " ("
	other := "SUBNET" + suffixes[1-f] + " at ADDR" + suffixes[1-f] + " ("
	// What the other host's table drops doctor does not see here.
	drop := func(match string, hooks ...string) string {
		chains := ""
		for _, hook := range hooks {
			chains += fmt.Sprintf("chain c_%[1]s { type filter hook %[1]s priority -300; %[2]s drop; }; ", hook, match)
		}
		return fmt.Sprintf("nft 'table %s cut { %s}'", strings.Fields(tableOf[f])[0], chains)
	}
	mends := "nft delete table " + strings.Fields(tableOf[f])[0] + " cut"
	port := fmt.Sprintf("udp dport %d", b.port)
	const look = "Run: flanneld doctor, on "
	accept := fmt.Sprintf("must accept UDP port %d from ", b.port)
	list := []trouble{
		{
			name: "this host drops the backend's port", breaks: fmt.Sprintf("%s -I INPUT -p udp --dport %d -j DROP", iptablesOf[f], b.port), mends: iptablesOf[f] + " -F INPUT",
			says: []string{
				fmt.Sprintf("filter: chain INPUT of table %s drops the packets of %s from ADDR%s on UDP port %d", tableOf[f], b.devices[f], suffixes[f], b.port),
				fmt.Sprintf("Run: %s -I INPUT -i eth0 -p udp --dport %d -j ACCEPT", iptablesOf[f], b.port),
			},
		},
		{
			name: "the way there drops the backend's port", breaks: drop(port, "prerouting"), mends: mends, there: true,
			says: []string{"overlay: " + there, "no answer, but its own probes arrive here: the way there is cut, the way back works", look, "on ADDR" + suffixes[f] + ": it, and each firewall", accept},
		},
		{
			name: "the way back drops the backend's port", breaks: drop(port, "postrouting"), mends: mends, there: true,
			says: []string{"overlay: " + there, "no answer: the way to ADDR" + suffixes[f], look, accept},
		},
		{
			name: "the way drops the backend's port in both directions", breaks: drop(port, "prerouting", "postrouting"), mends: mends, there: true,
			says: []string{"overlay: " + there, "no answer: the way to ADDR" + suffixes[f], look, accept},
		},
		{
			name: "the underlay is narrower than it claims", breaks: drop("meta length > 1400", "prerouting"), mends: mends, there: true,
			says: []string{"overlay: " + there, "are lost on the way, small ones are not", "Run: " + b.narrow[f]},
		},
	}
	for i := range list {
		list[i].name += ", " + f.Name()
		list[i].silent = append(list[i].silent, other)
	}
	return list
}
