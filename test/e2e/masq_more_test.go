package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

// startSecond starts a further daemon with another network on a host.
func startSecond(t *testing.T, h *lab.Host, flags ...string) *lab.Daemon {
	t.Helper()
	d, err := h.StartDaemon(lab.DaemonOptions{
		Name: "second", Prefix: "/second", SubnetFile: "/run/flannel/second.env", HealthPort: 8082, Flags: flags,
	})
	lab.Must(t, err)
	daemonReady(t, d)
	return d
}

func daemonReady(t *testing.T, d *lab.Daemon) {
	t.Helper()
	eventually.Says(t, func() (string, bool) {
		code, body, err := d.Get(t.Context(), "/readyz")
		return fmt.Sprint(body, err), code == 200
	})
}

// linesWith returns the lines that name one network, in their order.
func linesWith(text string, networks ...string) string {
	var lines []string
	for line := range strings.Lines(text) {
		for _, n := range networks {
			if strings.Contains(line, n) {
				lines = append(lines, strings.TrimSpace(line))
				break
			}
		}
	}
	return strings.Join(lines, "\n")
}

func TestTwoDaemonsLeaveEachOthersRulesAlone(t *testing.T) {
	for _, mode := range filterModes {
		t.Run(mode.name, func(t *testing.T) {
			l := masqLab(t, mode, "--iptables-resync=1")
			second := strings.NewReplacer("10.244", "10.245", "10:244", "10:245", `"vxlan"`, `"vxlan", "VNI": 7`).Replace(dualConfig(mode.nft, ""))
			lab.Must(t, l.Etcd.Put(t.Context(), "/second/config", second))
			up(t, l)
			h := l.Hosts[0]
			alone := ruleText(t, h)
			d := startSecond(t, h)
			first := func() string { return linesWith(ruleText(t, h), "10.244.", "10:244:") }
			other := func() string { return linesWith(ruleText(t, h), "10.245.", "10:245:") }
			a, b := first(), other()
			if a != linesWith(alone, "10.244.", "10:244:") || b == "" {
				t.Fatalf("rules\n%s\nof both\n%s", a, b)
			}
			// Each puts back its own.
			for command := range strings.SplitSeq(ruleFaults[mode.name][0].commands, "; ") {
				onHost(t, h, command)
			}
			eventually.Says(t, func() (string, bool) { now := first() + "\n" + other(); return now, now == a+"\n"+b })
			// One that goes leaves the other's, and the shared rules with them.
			lab.Must(t, d.Stop())
			d = startSecond(t, h, "--ip-masq=false", "--iptables-forward-rules=false")
			eventually.Says(t, func() (string, bool) { now := ruleText(t, h); return now, other() == "" && first() == a })
			if now := ownRules(t, h); now != sortedOwn(alone) {
				t.Errorf("before:\n%s\nnow:\n%s", sortedOwn(alone), now)
			}
			lab.Must(t, d.Stop())
			connected(t, l)
		})
	}
}

func TestWithoutAnyProgramTheRulesAreThere(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1, Families: lab.Dual, Network: dualConfig(false, "")})
	h := l.Hosts[0]
	d, err := h.StartDaemon(lab.DaemonOptions{Flags: []string{"--ip-masq"}, Env: []string{"PATH=/nowhere"}})
	lab.Must(t, err)
	daemonReady(t, d)
	log := d.Log()
	if n := strings.Count(log, `msg="packet filter" mode=nftables why="no iptables programs"`); n != 1 || strings.Contains(log, "not found in $PATH") {
		t.Errorf("logged %d times:\n%s", n, log)
	}
	pod, err := h.AddPod("pod1")
	lab.Must(t, err)
	for _, f := range ipfam.All() {
		if got := (connection{from: pod.Node, to: l.Router, addr: routerAddr(f)}).seen(t); got != h.Addr(f) {
			t.Errorf("a pod is seen as %s", got)
		}
	}
	lab.Must(t, d.Stop())
}

func TestExcludedDestinationsSeeThePodsAddress(t *testing.T) {
	for _, mode := range filterModes {
		t.Run(mode.name, func(t *testing.T) {
			l := masqLab(t, mode)
			lab.Must(t, l.Etcd.Put(t.Context(), lab.DefaultPrefix+"/config",
				dualConfig(mode.nft, `"MasqueradeExclude": ["172.31.1.1", "fd00:31:0:1::1/128", "nodes"],`)))
			up(t, l)
			host, other := l.Hosts[0], l.Hosts[1]
			outsideReachesPods(t, l, host)
			pod := host.Pods()[0]
			for _, f := range ipfam.All() {
				for _, to := range []connection{
					{from: pod.Node, to: l.Router, addr: routerAddr(f)},
					{from: pod.Node, to: other.Node, addr: other.Addr(f)},
				} {
					eventually.Says(t, func() (string, bool) {
						got := to.seen(t)
						return got.String(), got == pod.Addr(f)
					})
				}
			}
			// The address of a node comes and goes with it.
			key, value := fakePeer(99)
			lab.Must(t, l.Etcd.Put(t.Context(), key, value))
			eventually.Says(t, func() (string, bool) { now := ruleText(t, host); return now, strings.Contains(now, "172.31.1.99") })
			lab.Must(t, l.Etcd.Delete(t.Context(), key))
			eventually.Says(t, func() (string, bool) { now := ruleText(t, host); return now, !strings.Contains(now, "172.31.1.99") })
		})
	}
}

func TestRulesOfAnotherNetworkOrSubnetGo(t *testing.T) {
	for _, mode := range filterModes {
		t.Run(mode.name, func(t *testing.T) {
			l := masqLab(t, mode)
			up(t, l)
			h := l.Hosts[0]
			lab.Must(t, h.Stop())
			lab.Must(t, l.Etcd.Put(t.Context(), lab.DefaultPrefix+"/config",
				strings.NewReplacer("10.244", "10.99", "10:244", "10:99").Replace(dualConfig(mode.nft, ""))))
			lab.Must(t, h.StartFlanneld())
			ready(t, h)
			now := ruleText(t, h)
			if strings.Contains(now, "10.244") || strings.Contains(now, "10:244") || !strings.Contains(now, "10.99") || !strings.Contains(now, "10:99") {
				t.Errorf("another network:\n%s", now)
			}
			old := subnetOf(t, h)
			_, stranger := fakePeer(99)
			lab.Must(t, l.Etcd.Put(t.Context(), keyOf(t, h), stranger))
			eventually.Says(t, func() (string, bool) {
				now := ruleText(t, h)
				own := subnetOf(t, h)[ipfam.V4].String()
				return now, own != old[ipfam.V4].String() && strings.Contains(now, own) && !strings.Contains(now, old[ipfam.V4].String())
			})
		})
	}
}

func TestALockThatIsHeldIsWaitedFor(t *testing.T) {
	l := masqLab(t, filterModes[1])
	h := l.Hosts[0]
	var lock *os.File
	lab.Must(t, h.Do(func() (err error) {
		if lock, err = os.OpenFile("/run/xtables.lock", os.O_CREATE|os.O_RDWR, 0o600); err != nil {
			return err
		}
		return unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}))
	defer lock.Close()
	lab.Must(t, h.StartFlanneld())
	eventually.Says(t, func() (string, bool) {
		code, body, _ := h.Flanneld().Get(t.Context(), "/readyz")
		return body, code == 503 && strings.Contains(body, "rules: ") && strings.Contains(body, "xtables lock")
	})
	lab.Must(t, lock.Close())
	ready(t, h)
}

func TestPortsAreRandomUnlessToldOtherwise(t *testing.T) {
	for _, mode := range filterModes {
		t.Run(mode.name, func(t *testing.T) {
			l := masqLab(t, mode)
			h := l.Hosts[0]
			lab.Must(t, h.StartFlanneld())
			ready(t, h)
			random := func() int {
				now := ruleText(t, h)
				if mode.name == "iptables-nft" { // nft does not show all of what these programs write
					now = onHost(t, h, "iptables-nft -t nat -S") + onHost(t, h, "ip6tables-nft -t nat -S")
				}
				return strings.Count(now, "random-fully") + strings.Count(now, "fully-random")
			}
			if n := random(); n != 4 {
				t.Errorf("%d rules choose random ports, want 4\n%s", n, ruleText(t, h))
			}
			h.Flags = []string{"--ip-masq-fully-random-disable"}
			restart(t, h, func() {})
			if n := random(); n != 0 {
				t.Errorf("%d rules choose random ports, want none", n)
			}
		})
	}
}

func TestTheBlackholeRouteComesBack(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1, Families: lab.Dual, Flags: []string{"--ip-blackhole-route"}})
	h := l.Hosts[0]
	lab.Must(t, h.StartFlanneld())
	ready(t, h)
	routes := func() string {
		return onHost(t, h, "ip route show type blackhole") + onHost(t, h, "ip -6 route show type blackhole")
	}
	complete := func() (string, bool) {
		now := routes()
		return now, strings.Contains(now, place(t, "SUBNET ", h)) && strings.Contains(now, place(t, "SUBNET6 ", h))
	}
	eventually.Says(t, complete)
	onHost(t, h, place(t, "ip route del blackhole SUBNET", h))
	onHost(t, h, place(t, "ip -6 route del blackhole SUBNET6", h))
	eventually.Says(t, complete)
}

func TestSettingsOfTheHostAreSaidAndLeftAlone(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1, Families: lab.Dual})
	h := l.Hosts[0]
	lab.Must(t, h.Sysctl("net/ipv4/ip_forward", "0"))
	lab.Must(t, h.Sysctl("net/ipv6/conf/all/forwarding", "0"))
	lab.Must(t, h.Sysctl("net/ipv4/conf/eth0/rp_filter", "1"))
	lab.Must(t, h.ConfigureUplink())
	lab.Must(t, h.StartFlanneld())
	ready(t, h)
	for _, want := range []string{
		"sysctl -w net.ipv4.ip_forward=1", "sysctl -w net.ipv6.conf.all.forwarding=1", "sysctl -w net.ipv4.conf.eth0.rp_filter=2",
	} {
		if n := strings.Count(h.Log(), want); n != 1 {
			t.Errorf("%q said %d times", want, n)
		}
	}
	readyzSays := func(want bool, texts ...string) {
		t.Helper()
		eventually.Says(t, func() (string, bool) {
			code, body, err := h.Flanneld().Get(t.Context(), "/readyz")
			_, status, _ := h.Flanneld().Get(t.Context(), "/status")
			ok := err == nil && code == 200
			for _, text := range texts {
				ok = ok && strings.Contains(body, text) == want && strings.Contains(status, text) == want
			}
			return body + status, ok
		})
	}
	readyzSays(true, "net.ipv4.ip_forward is 0", "net.ipv6.conf.all.forwarding is 0", "net.ipv4.conf.eth0.rp_filter is 1")
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if text, err := h.ReadFile("/proc/sys/" + name); err != nil || strings.TrimSpace(string(text)) != "0" {
			t.Errorf("%s is %s, %v", name, text, err)
		}
	}
	// The daemon follows what somebody changes while it runs.
	lab.Must(t, h.Sysctl("net/ipv4/ip_forward", "1"))
	lab.Must(t, h.Sysctl("net/ipv4/conf/eth0/rp_filter", "2"))
	readyzSays(false, "net.ipv4.ip_forward is 0", "rp_filter")
	readyzSays(true, "net.ipv6.conf.all.forwarding is 0")
	lab.Must(t, h.Sysctl("net/ipv4/ip_forward", "0"))
	readyzSays(true, "net.ipv4.ip_forward is 0")
}

// What flannel has left in its own nftables, and in iptables of the mode that
// is not used, goes.
func TestWhatFlannelHasLeftGoes(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1, Network: `{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}`, Flags: []string{"--ip-masq"}})
	h := l.Hosts[0]
	for _, command := range []string{
		"nft add table ip flannel-ipv4",
		"nft add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority 100 ; }",
		"nft add rule ip flannel-ipv4 postrtg meta mark 0x4000 return",
		"nft add rule ip flannel-ipv4 postrtg ip saddr 10.244.7.0/24 ip daddr 10.244.0.0/16 return",
		"nft add rule ip flannel-ipv4 postrtg ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random",
		"nft add chain ip flannel-ipv4 forward { type filter hook forward priority 0 ; }",
		"nft add rule ip flannel-ipv4 forward ip saddr 10.244.0.0/16 accept",
		"iptables-legacy -N FLANNEL-FWD", "iptables-legacy -A FORWARD -m comment --comment flanneld -j FLANNEL-FWD",
		"iptables-nft -A FORWARD -s 203.0.113.1 -j ACCEPT", "iptables-nft -A FORWARD -s 203.0.113.2 -j ACCEPT",
	} {
		onHost(t, h, command)
	}
	lab.Must(t, h.StartFlanneld())
	ready(t, h)
	eventually.Says(t, func() (string, bool) {
		now := ruleText(t, h)
		legacy := onHost(t, h, "iptables-legacy -S")
		return now, !strings.Contains(now, "flannel-ipv4") && !strings.Contains(legacy, "FLANNEL") && strings.Contains(now, "chain FLANNEL-POSTRTG")
	})
}
