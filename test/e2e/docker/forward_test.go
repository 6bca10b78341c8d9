package docker

import (
	"strings"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
	"flannel/lab/cgroup"
	"flannel/lab/ping"
)

// withoutPrograms is the environment of a daemon that finds no iptables, as in
// the image.
var withoutPrograms = []string{"PATH=/nowhere"}

// TestDockersDropIsLifted runs the daemon beside a Docker that drops what is
// forwarded.
func TestDockersDropIsLifted(t *testing.T) {
	for name, test := range map[string]struct {
		env []string
		// kind of the iptables that Docker uses.
		kind string
	}{
		"without programs, as in the image":            {withoutPrograms, "-nft"},
		"with the programs, Docker on the legacy ones": {nil, "-legacy"},
	} {
		t.Run(name, func(t *testing.T) { liftsDockersDrop(t, test.env, test.kind) })
	}
}

func liftsDockersDrop(t *testing.T, env []string, kind string) {
	p, err := built()
	lab.Must(t, err)
	lab.Must(t, cgroup.Sweep(t.Context()))
	groups := newGroups(t)
	l := lab.ForTest(t, lab.Options{Hosts: 2, Binaries: p.Binaries, Flags: []string{"--ip-masq"}})
	var engines []*engine
	var pods []container
	for _, h := range l.Hosts {
		// Packets between the containers of one host are filtered, too.
		lab.Must(t, h.Sysctl("net/bridge/bridge-nf-call-iptables", "1"))
		startDaemon(t, h, env)
		dropsByDefault(t, h)
		e := startDocker(t, h, groups, kind)
		engines = append(engines, e)
		pods = append(pods, e.run("first"), e.run("second"))
	}
	lifted := func() {
		t.Helper()
		for _, e := range engines {
			eventually.Says(t, func() (string, bool) {
				now := e.exec("iptables"+kind, "-S", "FORWARD")
				return now, strings.Contains(now, "-P FORWARD DROP") && strings.Count(now, "-j FLANNEL-FWD") == 1
			})
			if rules := e.exec("iptables" + kind + "-save"); strings.Contains(rules, "FLANNEL-POSTRTG") {
				t.Error(rules)
			}
		}
		reachEachOther(t, pods)
		for _, h := range l.Hosts {
			doctorReports(t, h)
		}
	}
	lifted()
	for i, e := range engines {
		e.restart()
		for n, name := range []string{"first", "second"} {
			e.docker("start", name)
			pods[2*i+n] = e.open(name)
		}
	}
	lifted()
	for _, e := range engines {
		e.exec("iptables"+kind, "-F", "FORWARD")
	}
	lifted()
}

// TestTheSwapOfFlannelCutsNoContainerOff begins with the rules that flannel
// writes with iptables, and continues without the programs.
func TestTheSwapOfFlannelCutsNoContainerOff(t *testing.T) {
	p, err := built()
	lab.Must(t, err)
	lab.Must(t, cgroup.Sweep(t.Context()))
	groups := newGroups(t)
	l := lab.ForTest(t, lab.Options{Hosts: 2, Binaries: p.Binaries, Flags: []string{"--ip-masq"}})
	var pods []container
	var daemons []*lab.Daemon
	var engines []*engine
	for _, h := range l.Hosts {
		// As flannel's, but for the program that writes them.
		d := startDaemon(t, h, nil)
		dropsByDefault(t, h)
		e := startDocker(t, h, groups, "-nft")
		daemons, engines = append(daemons, d), append(engines, e)
		pods = append(pods, e.run("only"))
	}
	reachEachOther(t, pods)
	rules := func() (text string) {
		for _, e := range engines {
			text += e.exec("sh", "-c", "iptables -S FORWARD; iptables -S FLANNEL-FWD")
		}
		return text
	}
	before := rules()
	if !strings.Contains(before, "-P FORWARD DROP") || !strings.Contains(before, `-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD`) {
		t.Fatal(before)
	}
	series := startPing(t, pods[0], pods[1])
	for i, h := range l.Hosts {
		lab.Must(t, daemons[i].Stop())
		startDaemon(t, h, withoutPrograms)
		eventually.Says(t, func() (string, bool) {
			now := engines[i].exec("iptables-save")
			return now, !strings.Contains(now, "FLANNEL-POSTRTG")
		})
	}
	lab.NothingLost(t, series)
	if now := rules(); now != before {
		t.Errorf("before\n%s\nnow\n%s", before, now)
	}
	reachEachOther(t, pods)
}

// dropsByDefault makes a Docker that starts drop what is forwarded, as it does
// where it turns forwarding on itself.
func dropsByDefault(t *testing.T, h *lab.Host) {
	t.Helper()
	lab.Must(t, h.Sysctl("net/ipv4/ip_forward", "0"))
}

// startDaemon starts flanneld on a host and waits until it is ready.
func startDaemon(t *testing.T, h *lab.Host, env []string) *lab.Daemon {
	t.Helper()
	d, err := h.StartDaemon(lab.DaemonOptions{Env: env})
	lab.Must(t, err)
	lab.Must(t, d.WaitReady(limited(t)))
	return d
}

// startPing lets one container ping another without a break.
func startPing(t *testing.T, from, to container) *ping.Series {
	t.Helper()
	var c *ping.Conn
	lab.Must(t, from.Do(func() (err error) {
		c, err = ping.Open(ipfam.V4)
		return err
	}))
	return ping.Start(c, to.addr, 5*time.Millisecond)
}
