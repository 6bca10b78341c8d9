package e2e

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

func TestWhoSeesWhichAddress(t *testing.T) {
	for _, mode := range filterModes {
		t.Run(mode.name, func(t *testing.T) {
			l := masqLab(t, mode)
			up(t, l)
			outsideReachesPods(t, l, l.Hosts[0])
			markPort(t, l.Hosts[0])
			for _, f := range ipfam.All() {
				t.Run(f.String(), func(t *testing.T) { addresses(t, l, f) })
			}
		})
	}
}

// markedPort is the port of connections that a host marks as kube-proxy does.
const markedPort = 7001

// markPort marks connections; the mark has another bit beside kube-proxy's.
func markPort(t *testing.T, h *lab.Host) {
	t.Helper()
	for _, command := range []string{
		"nft add table inet marker",
		"nft add chain inet marker pre { type filter hook prerouting priority -150 ; }",
		"nft add rule inet marker pre tcp dport 7001 meta mark set 0x5000",
	} {
		onHost(t, h, command)
	}
}

func addresses(t *testing.T, l *lab.Lab, f ipfam.Family) {
	host, other := l.Hosts[0], l.Hosts[1]
	pod, remote := host.Pods()[0], other.Pods()[0]
	router, gateway, tunnel := routerAddr(f), envOf(t, host).Subnet[f].Addr(), subnetOf(t, host)[f].Addr()
	tests := []struct {
		name string
		connection
		want netip.Addr
	}{
		{"a pod to the outside has the host's", connection{from: pod.Node, to: l.Router, addr: router}, host.Addr(f)},
		{"a pod to another pod has its own", connection{from: pod.Node, to: remote.Node, addr: remote.Addr(f)}, pod.Addr(f)},
		{"the host to a pod elsewhere has that on the tunnel", connection{from: host.Node, source: host.Addr(f), to: remote.Node, addr: remote.Addr(f)}, tunnel},
		{"the host to a pod elsewhere, as routed", connection{from: host.Node, to: remote.Node, addr: remote.Addr(f)}, tunnel},
		{"a marked connection keeps its own", connection{from: pod.Node, to: l.Router, addr: router, port: markedPort}, pod.Addr(f)},
		{"the outside to a pod keeps its own", connection{from: l.Router, to: pod.Node, addr: pod.Addr(f)}, router},
		{"the bridge to the outside has the host's", connection{from: host.Node, source: gateway, to: l.Router, addr: router}, host.Addr(f)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.seen(t); got != tt.want {
				t.Errorf("seen as %s, want %s\n%s", got, tt.want, ruleText(t, host))
			}
		})
	}
	t.Run("the bridge to a group keeps its own", func(t *testing.T) {
		group := ipfam.Pair[netip.Addr]{netip.MustParseAddr("239.1.2.3"), netip.MustParseAddr("ff0e::123")}[f]
		if got := multicastSeen(t, l, host, gateway, group); got != gateway {
			t.Errorf("seen as %s, want %s", got, gateway)
		}
	})
}

// ruleFault is something that happens to the rules of a host.
type ruleFault struct{ name, commands string }

var ruleFaults = map[string][]ruleFault{
	"iptables-nft":    iptablesFaults("-nft"),
	"iptables-legacy": iptablesFaults("-legacy"),
	"nftables": {
		{"everything", "nft flush ruleset"},
		{"a table", "nft delete table ip6 flannel-ipv6"},
		{"a chain", "nft flush chain ip flannel-ipv4 forward; nft delete chain ip flannel-ipv4 forward"},
		{"the rules of a chain", "nft flush chain ip flannel-ipv4 postrtg"},
		{"a rule too many", "nft insert rule ip flannel-ipv4 postrtg ip saddr 10.244.0.0/16 return"},
	},
}

func iptablesFaults(suffix string) []ruleFault {
	faults := []ruleFault{
		{"all rules of two tables", "iptables -F; iptables -t nat -F"},
		{"as firewalls reload", "iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X; ip6tables -F; ip6tables -X; ip6tables -t nat -F; ip6tables -t nat -X"},
		{"a jump", "iptables -t nat -F POSTROUTING; ip6tables -F FORWARD"},
		{"a chain", "ip6tables -t nat -F POSTROUTING; ip6tables -t nat -F FLANNEL-POSTRTG; ip6tables -t nat -X FLANNEL-POSTRTG"},
		{"a rule", "iptables -t nat -D FLANNEL-POSTRTG 3; ip6tables -D FLANNEL-FWD 1"},
		{"the mark rule", "iptables -t nat -D FLANNEL-POSTRTG 1"},
	}
	for i, f := range faults {
		faults[i].commands = strings.ReplaceAll(f.commands, "tables ", "tables"+suffix+" ")
	}
	if suffix == "-nft" {
		faults = append(faults, ruleFault{"whole tables", "nft flush ruleset"})
	}
	return faults
}

// ownRules is what a host holds of our rules, in the order of the kernel.
func ownRules(t *testing.T, h *lab.Host) string {
	t.Helper()
	return sortedOwn(ruleText(t, h))
}

func TestRulesThatVanishArePutBack(t *testing.T) {
	for _, mode := range filterModes {
		t.Run(mode.name, func(t *testing.T) {
			l := masqLab(t, mode, "--iptables-resync=1")
			up(t, l)
			h := l.Hosts[0]
			before := ownRules(t, h)
			for _, fault := range ruleFaults[mode.name] {
				t.Run(fault.name, func(t *testing.T) {
					for command := range strings.SplitSeq(fault.commands, "; ") {
						onHost(t, h, command)
					}
					start := time.Now()
					eventually.Says(t, func() (string, bool) {
						now := ownRules(t, h)
						return "before:\n" + before + "\nnow:\n" + now, now == before
					})
					t.Logf("healed after %v", time.Since(start).Round(time.Millisecond))
					for _, f := range ipfam.All() {
						pod := connection{from: h.Pods()[0].Node, to: l.Router, addr: routerAddr(f)}
						if got := pod.seen(t); got != h.Addr(f) {
							t.Errorf("a pod is seen as %s", got)
						}
					}
				})
			}
			if _, metrics, _ := h.Flanneld().Get(t.Context(), "/metrics"); !strings.Contains(metrics, `flannel_kernel_drift_total{table="nat"}`) {
				t.Errorf("metrics\n%s", metrics)
			}
		})
	}
}

// useMode changes the mode in the network configuration.
func useMode(t *testing.T, l *lab.Lab, nft bool) {
	t.Helper()
	lab.Must(t, l.Etcd.Put(t.Context(), lab.DefaultPrefix+"/config", dualConfig(nft, "")))
}

func TestConnectionsSurviveARestartAndASwitchOfTheMode(t *testing.T) {
	for _, mode := range filterModes[:2] {
		t.Run(mode.name, func(t *testing.T) {
			l := masqLab(t, mode)
			up(t, l)
			h := l.Hosts[0]
			var ends [][2]net.Conn
			for _, f := range ipfam.All() {
				client, server := connection{from: h.Pods()[0].Node, to: l.Router, addr: routerAddr(f)}.open(t)
				ends = append(ends, [2]net.Conn{client, server})
			}
			alive := func(after string) {
				t.Helper()
				for _, e := range ends {
					if err := exchange(e[0], e[1]); err != nil {
						t.Errorf("%s: %v", after, err)
					}
				}
				for _, f := range ipfam.All() {
					c := connection{from: h.Pods()[0].Node, to: l.Router, addr: routerAddr(f)}
					if got := c.seen(t); got != h.Addr(f) {
						t.Errorf("%s: a pod is seen as %s", after, got)
					}
				}
			}
			alive("start")
			before := ownRules(t, h)
			restart(t, h, func() { alive("stop") })
			alive("restart")
			if now := ownRules(t, h); now != before {
				t.Errorf("before:\n%s\nnow:\n%s", before, now)
			}
			if _, metrics, _ := h.Flanneld().Get(t.Context(), "/metrics"); strings.Contains(metrics, `table="nat"`) {
				t.Errorf("the restart wrote rules\n%s", metrics)
			}
			useMode(t, l, true)
			restart(t, h, func() {})
			eventually.Says(t, func() (string, bool) {
				now := ruleText(t, h)
				// FLANNEL-FWD stays where iptables-nft has a chain FORWARD.
				return now, !strings.Contains(now, "FLANNEL-POSTRTG") && strings.Contains(now, "flannel-ipv6") &&
					strings.Contains(now, "FLANNEL-FWD") == (mode.name == "iptables-nft")
			})
			alive("switch to nftables")
			restart(t, h, func() { alive("stop with nftables") })
			alive("restart with nftables")
			useMode(t, l, false)
			restart(t, h, func() {})
			eventually.Says(t, func() (string, bool) {
				now := ownRules(t, h)
				return now, now == before
			})
			alive("switch to iptables")
			if now := ruleText(t, h); !strings.Contains(now, "203.0.113.1") {
				t.Errorf("the rule of others is gone:\n%s", now)
			}
		})
	}
}

// acceptsInForward are the commands that let the overlay's packets pass the
// chain FORWARD of iptables.
func acceptsInForward(program string) []string {
	command := "PROGRAM -I FORWARD -s NETWORK -j ACCEPT && PROGRAM -I FORWARD -d NETWORK -j ACCEPT"
	return []string{
		strings.NewReplacer("PROGRAM", "ip"+program, "NETWORK", "10.244.0.0/16").Replace(command),
		strings.NewReplacer("PROGRAM", "ip6"+program, "NETWORK", "fd00:10:244::/48").Replace(command),
	}
}

// The chain FORWARD that drops may be of the kind of iptables that the daemon has
// not chosen.
func TestPodsTalkDespiteAForwardDrop(t *testing.T) {
	for _, mode := range filterModes {
		for _, kind := range []string{"-nft", "-legacy"} {
			t.Run(mode.name+", dropped by iptables"+kind, func(t *testing.T) {
				l := masqLab(t, mode, "--iptables-resync=1")
				onAll := func(rule string) {
					for _, h := range l.Hosts {
						onHost(t, h, "iptables"+kind+" "+rule)
						onHost(t, h, "ip6tables"+kind+" "+rule)
					}
				}
				onAll("-P FORWARD DROP")
				up(t, l)
				onAll("-F FORWARD")
				connected(t, l)
				// A drop may come while the daemon runs, as when Docker starts.
				onAll("-P FORWARD ACCEPT")
				onAll("-F")
				onAll("-P FORWARD DROP")
				connected(t, l)
				for _, h := range l.Hosts {
					if strings.Contains(h.Log(), "packets of pods are dropped") {
						t.Error(h.Log())
					}
				}
			})
		}
	}
}

// dropIsSaid starts the hosts' daemons, finds in their logs what helps, and
// does that.
func dropIsSaid(t *testing.T, l *lab.Lab, commands ...string) {
	t.Helper()
	for _, h := range l.Hosts {
		lab.Must(t, h.StartFlanneld())
		for _, want := range commands {
			eventually.Says(t, func() (string, bool) { return h.Log(), strings.Contains(h.Log(), want) })
			for command := range strings.SplitSeq(want, " && ") {
				onHost(t, h, command)
			}
		}
		lab.Must(t, h.Stop())
	}
}

// An accept in our chain undoes neither a reject ahead of it, as firewalls end
// with one, nor one in another table.
func TestDropsThatIptablesModeCannotUndoAreSaid(t *testing.T) {
	for _, mode := range filterModes[:2] {
		t.Run(mode.name, func(t *testing.T) {
			program := "tables" + strings.TrimPrefix(mode.name, "iptables")
			const insert = "nft insert rule inet mine last "
			l := masqLab(t, mode, "--iptables-resync=1")
			for _, h := range l.Hosts {
				for _, command := range []string{
					"ip" + program + " -A FORWARD -j REJECT", "ip6" + program + " -A FORWARD -j REJECT",
					"nft add table inet mine", "nft add chain inet mine last { type filter hook forward priority 10 ; }",
					"nft add rule inet mine last reject with icmpx type admin-prohibited",
				} {
					onHost(t, h, command)
				}
			}
			dropIsSaid(t, l, append(acceptsInForward(program),
				insert+"ip saddr 10.244.0.0/16 accept && "+insert+"ip daddr 10.244.0.0/16 accept",
				insert+"ip6 saddr fd00:10:244::/48 accept && "+insert+"ip6 daddr fd00:10:244::/48 accept")...)
			up(t, l)
		})
	}
}
