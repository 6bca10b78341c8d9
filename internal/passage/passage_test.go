package passage

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"flannel/internal/firewall"
	"flannel/internal/ipfam"
	"flannel/internal/testkit/nstest"
)

// node is a host with vxlan, whose port is not the usual one.
func node() Host {
	v4 := ipfam.Pair[bool]{true}
	return Host{
		Networks: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		Own:      ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.244.1.0/24")},
		Bridges:  []firewall.Interface{{Name: "cni0"}},
		Exits:    []Exit{{firewall.Interface{Name: "flannel.1"}, v4}},
		Tunnels: []Tunnel{{
			Name: "flannel.1", Uplink: firewall.Interface{Name: "eth0"}, Local: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Port: 4789, Families: v4,
			Peers: []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")},
		}},
	}
}

// look returns what drops packets, a line for each rule; notes have a question mark.
func look(t *testing.T, ns *nstest.NS, h Host) string {
	t.Helper()
	var lines []string
	ns.Do(func() {
		drops, err := Read(h.Packets())
		if err != nil {
			t.Error(err)
		}
		for _, f := range Explain(drops) {
			mark := ""
			if !f.Certain {
				mark = "? "
			}
			lines = append(lines, mark+f.Problem+" # "+f.Command)
		}
	})
	return strings.Join(lines, "\n")
}

func TestWhatIsFound(t *testing.T) {
	bridged := node()
	bridged.Bridged[ipfam.V4] = true
	unknown := node()
	unknown.Bridges, unknown.Exits, unknown.Tunnels = []firewall.Interface{{Name: "cni0"}}, nil, nil
	for _, tt := range []struct {
		name, commands string
		host           Host
		want           string
	}{
		{"no rules", "", node(), ""},
		{"accepts of the bridge ahead of the policy", "iptables-nft -P FORWARD DROP;iptables-nft -A FORWARD -i cni0 -j ACCEPT;iptables-nft -A FORWARD -o cni0 -j ACCEPT", node(), ""},
		{"the same before an installation", "iptables-nft -P FORWARD DROP;iptables-nft -A FORWARD -i cni0 -j ACCEPT;iptables-nft -A FORWARD -o cni0 -j ACCEPT", unknown, ""},
		{
			"the policy", "iptables-legacy -P FORWARD DROP", node(),
			"chain FORWARD of iptables-legacy drops forwarded packets of 10.244.0.0/16 (its policy is drop) # " +
				"iptables-legacy -I FORWARD -s 10.244.0.0/16 -j ACCEPT && iptables-legacy -I FORWARD -d 10.244.0.0/16 -j ACCEPT",
		},
		{
			"one direction", "iptables-nft -P FORWARD DROP;iptables-nft -A FORWARD -i cni0 -j ACCEPT", node(),
			"chain FORWARD of table ip filter drops packets to pods that come in by flannel.1 (its policy is drop) # " +
				"iptables-nft -I FORWARD -i flannel.1 -o cni0 -s 10.244.0.0/16 -d 10.244.1.0/24 -j ACCEPT",
		},
		{
			"what the tunnel sends", "iptables-nft -A OUTPUT -p udp --dport 4789 -j DROP", node(),
			"chain OUTPUT of table ip filter drops the packets of flannel.1 to 192.0.2.2 on UDP port 4789 (rule 1: -p udp --dport 4789 -j DROP) # " +
				"iptables-nft -I OUTPUT -o eth0 -p udp --dport 4789 -j ACCEPT",
		},
		{
			"what the tunnel gets, early", "iptables-legacy -t raw -A PREROUTING -s 192.0.2.3 -j DROP", node(),
			"chain PREROUTING of table raw of iptables-legacy drops the packets of flannel.1 from 192.0.2.3 on UDP port 4789 (rule 1: -s 192.0.2.3 -j DROP) # " +
				"iptables-legacy -t raw -I PREROUTING -i eth0 -p udp --dport 4789 -j ACCEPT",
		},
		{"rules of kube-proxy", "iptables-nft -A OUTPUT ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP;" +
			"iptables-nft -A INPUT ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP;" +
			"iptables-nft -A FORWARD -m conntrack --ctstate INVALID -j DROP;iptables-nft -A FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT;" +
			"iptables-nft -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", node(), ""},
		{"another port", "iptables-nft -A OUTPUT -p udp --dport 8472 -j DROP;iptables-nft -A INPUT -p udp --dport 8472 -j DROP", node(), ""},
		{"between pods of this node", "iptables-nft -A FORWARD -i cni0 -o cni0 -j DROP", node(), ""},
		{
			"between pods of this node, with br_netfilter", "iptables-nft -A FORWARD -i cni0 -o cni0 -j DROP", bridged,
			"chain FORWARD of table ip filter drops packets between pods on cni0 (rule 1: -i cni0 -o cni0 -j DROP) # " +
				"iptables-nft -I FORWARD -i cni0 -o cni0 -s 10.244.1.0/24 -d 10.244.1.0/24 -j ACCEPT",
		},
		{
			"a condition that is not understood", "iptables-nft -A FORWARD -m length --length 100 -j DROP", node(),
			"? chain FORWARD of table ip filter has a rule with other conditions that may drop forwarded packets of 10.244.0.0/16 (rule 1: (more conditions) -j DROP) # " +
				"if they are dropped: iptables-nft -I FORWARD -s 10.244.0.0/16 -j ACCEPT && iptables-nft -I FORWARD -d 10.244.0.0/16 -j ACCEPT",
		},
		{
			"an accept that is not understood", "iptables-nft -P INPUT DROP;iptables-nft -A INPUT -m length --length 100 -j ACCEPT", node(),
			"? chain INPUT of table ip filter has a rule with other conditions that may drop the packets of flannel.1 from 192.0.2.2 on UDP port 4789 (its policy is drop) # " +
				"if they are dropped: iptables-nft -I INPUT -i eth0 -p udp --dport 4789 -j ACCEPT",
		},
		{
			"a chain at a device", "ip link add flannel.1 type bridge;nft add table netdev x;nft add chain netdev x c { type filter hook ingress device flannel.1 priority 0 @ };" +
				"nft add rule netdev x c ip daddr 10.244.0.0/16 drop", node(),
			"chain c of table netdev x drops packets to pods that come in by flannel.1 (rule with handle 2: ip daddr 10.244.0.0/16 drop) # " +
				"nft insert rule netdev x c iifname flannel.1 ip saddr 10.244.0.0/16 ip daddr 10.244.1.0/24 accept",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
			ns := nstest.New(t)
			for command := range strings.SplitSeq(tt.commands, ";") {
				if name, args, ok := strings.Cut(command, " "); ok {
					ns.Tool(name, strings.ReplaceAll(args, "@", ";"))
				}
			}
			if got := look(t, ns, tt.host); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// A host may have many rules of others. Most of what this takes is the kernel's: it
// begins each part of a list at the chain's first rule.
func TestManyRulesAreReadCheaply(t *testing.T) {
	const many = 20_000
	var nft, legacy strings.Builder
	nft.WriteString("table inet x {\nchain c { type filter hook input priority 0; policy accept;\n")
	legacy.WriteString("*filter\n")
	for i := range many {
		fmt.Fprintf(&nft, "ip saddr 203.%d.%d.7 tcp dport %d counter drop\n", i/200, i%200, 1000+i)
		fmt.Fprintf(&legacy, "-A INPUT -s 203.%d.%d.7 -p tcp --dport %d -j DROP\n", i/200, i%200, 1000+i)
	}
	nft.WriteString("}\n}\n")
	legacy.WriteString("COMMIT\n")
	busy := node()
	busy.Tunnels[0].Peers = nil
	for i := range 20 {
		busy.Tunnels[0].Peers = append(busy.Tunnels[0].Peers, netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 2)}))
	}
	for kind, text := range map[string]string{"nft -f": nft.String(), "iptables-legacy-restore -n": legacy.String()} {
		t.Run(kind, func(t *testing.T) {
			t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
			ns := nstest.New(t)
			file := filepath.Join(t.TempDir(), "rules")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			name, args, _ := strings.Cut(kind, " ")
			ns.Tool(name, args+" "+file)
			ns.Do(func() {
				before := processTime(t)
				drops, err := Read(busy.Packets())
				took := processTime(t) - before
				if err != nil || len(drops) != 0 {
					t.Errorf("got %d, %v", len(drops), err)
				}
				t.Logf("%d rules took %s", many, took)
				if took > 3*time.Second {
					t.Errorf("%d rules took %s", many, took)
				}
			})
		})
	}
}

func processTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
