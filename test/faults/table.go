package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"syscall"
	"time"

	"flannel/internal/ipfam"
	"flannel/lab"
)

// fault is a line of the table.
type fault struct {
	name string
	// backend is the only one that the fault is for; empty means all.
	backend string
	// store is the one that the fault happens to, one such fault at a time;
	// empty means that it happens to a host.
	store string
	// wait is the documented wait that adds to the usual time to recover after
	// the fault was undone.
	wait wait
	// shortest and longest bound the time between inject and undo.
	shortest, longest time.Duration
	// cutsAll means that packets from and to the host may be lost while the fault
	// is made, stands and is undone; cuts is how long after that. If percent is
	// not zero, that many of a hundred are lost, drawn at random.
	cutsAll bool
	percent int
	cuts    time.Duration

	// stops means that the daemon does not run until undo: that cuts if packets
	// pass the daemon. restarts means that it is another process then.
	stops, restarts bool

	inject, undo act

	// leaves are words of what doctor finds although the fault was undone.
	leaves []string

	// uses names the records of the fault that hosts use, of which there may be
	// none. If it is set, the state of every host is checked while the fault
	// stands, and no other fault comes at the same time.
	uses func(scene) ([]use, error)
}

// use is a record, by its key in the store, that all hosts use but the one with
// the number except, and but for some families.
type use struct {
	key     string
	except  int
	without ipfam.Pair[bool]
}

// nobody is the number of no host.
const nobody = -1

// deadline is the time to recover after the fault was undone.
func (f fault) deadline() time.Duration { return deadline + f.wait.most }

// long reports whether the cluster may need far longer than usual to recover.
func (f fault) long() bool { return f.deadline() > 40*time.Second }

func (f fault) short() bool { return !f.long() }

// act does something to a host.
type act func(context.Context, scene) error

// scene is where a fault happens: on host, to what it has of peer.
type scene struct {
	*suite
	host, peer *lab.Host
	drawn      drawn
}

// Usual values of the table.
const (
	deadline = 5 * time.Second
	repair   = 500 * time.Millisecond

	// After a loss of the carrier the kernel looks at a link once a second.
	carrier = time.Second + repair
	// lossPercent is how many of a hundred packets are lost at random.
	lossPercent = 30
	// A daemon begins with its lease and its peers.
	begin = 2 * time.Second
	// A store that refused a record is asked again after a second at first.
	again = 2 * time.Second
)

// faults is the table.
func faults() []fault { return slices.Concat(hostFaults(), etcdFaults(), kubernetesFaults()) }

func hostFaults() []fault {
	return []fault{
		{name: "daemon killed", restarts: true, wait: waitStart(), longest: time.Second, inject: kill, undo: start},
		{name: "daemon stopped and continued", stops: true, shortest: time.Second, longest: 10 * time.Second,
			inject: send(syscall.SIGSTOP), undo: send(syscall.SIGCONT)},
		{name: "daemon terminated in its first pass", restarts: true, wait: waitStart(), longest: 300 * time.Millisecond,
			inject: firstPass, undo: start},

		{name: "device deleted", backend: vxlan, cuts: repair, inject: commands("ip link del flannel.1", "ip link del flannel-v6.1")},
		{name: "device set down", backend: vxlan, cuts: repair, inject: commands("ip link set flannel.1 down", "ip link set flannel-v6.1 down")},
		{name: "device's MAC changed", backend: vxlan, cuts: repair, inject: commands(
			"ip link set flannel.1 address 02:00:00:00:00:98", "ip link set flannel-v6.1 address 02:00:00:00:00:98")},
		{name: "device's MTU changed", backend: vxlan, cuts: repair, inject: commands("ip link set flannel.1 mtu 1300", "ip link set flannel-v6.1 mtu 1300")},
		{name: "device's offload turned on", backend: vxlan, cuts: repair, inject: commands("ethtool -K flannel.1 tx on", "ethtool -K flannel-v6.1 tx on")},
		{name: "device's address deleted", backend: vxlan, cuts: repair, inject: commands("ip addr flush dev flannel.1", "ip -6 addr flush dev flannel-v6.1 scope global")},
		{name: "device deleted", backend: udp, cuts: repair, inject: commands("ip link del flannel0")},
		{name: "device set down", backend: udp, cuts: repair, inject: commands("ip link set flannel0 down")},
		{name: "device's MTU changed", backend: udp, cuts: repair, inject: commands("ip link set flannel0 mtu 1300")},
		{name: "device's address deleted", backend: udp, cuts: repair, inject: commands("ip addr flush dev flannel0", "ip -6 addr flush dev flannel0")},
		{name: "neighbor deleted", backend: vxlan, cuts: repair, inject: commands("ip neigh del VTEP dev flannel.1", "ip -6 neigh del VTEP6 dev flannel-v6.1")},
		{name: "FDB entry deleted", backend: vxlan, cuts: repair, inject: deleteFDB},
		{name: "route deleted", cuts: repair, inject: commands("ip route del ROUTE", "ip -6 route del ROUTE6")},
		{name: "routes flushed", cuts: repair, inject: commands("ip route flush proto 70", "ip -6 route flush proto 70")},
		{name: "foreign routes beside ours", longest: time.Second,
			inject: commands("ip route add ROUTE dev foreign0 metric 4000 proto static", "ip -6 route add ROUTE6 dev foreign0 metric 4000 proto static"),
			undo:   commands("ip route del ROUTE dev foreign0", "ip -6 route del ROUTE6 dev foreign0")},
		{name: "foreign routes of equal metric behind ours", longest: time.Second,
			inject: commands("ip route append ROUTE dev foreign0 METRIC proto static", "ip -6 route append ROUTE6 dev foreign0 METRIC6 proto static"),
			undo:   commands("ip route del ROUTE dev foreign0", "ip -6 route del ROUTE6 dev foreign0")},
		{name: "foreign routes in front of ours", longest: 2 * time.Second, cutsAll: true, cuts: repair,
			inject: commands("ip route add ROUTE dev foreign0 proto static", "ip -6 route add ROUTE6 dev foreign0 metric 1 proto static"),
			undo:   commands("ip route del ROUTE dev foreign0", "ip -6 route del ROUTE6 dev foreign0")},
		{name: "route on our device in front of ours", backend: vxlan, cuts: repair, inject: commands("ip route add ROUTE dev flannel.1")},
		{name: "foreign routes in place of ours", longest: 2 * time.Second, cutsAll: true, cuts: repair,
			inject: commands("ip route replace ROUTE dev foreign0 METRIC proto static", "ip -6 route replace ROUTE6 dev foreign0 METRIC6 proto static"),
			undo:   commands("ip route del ROUTE dev foreign0", "ip -6 route del ROUTE6 dev foreign0")},
		{name: "foreign routes that win against ours", longest: 2 * time.Second, cutsAll: true, cuts: repair,
			inject: commands("ip route add ROUTE dev foreign0 proto static"), undo: commands("ip route del ROUTE dev foreign0")},
		{name: "foreign rules in the way", longest: 2 * time.Second, cutsAll: true,
			inject: commands("ip rule add to SUBNET lookup 100 priority 500", "ip route add blackhole default table 100",
				"ip -6 rule add to SUBNET6 lookup 100 priority 500", "ip -6 route add blackhole default table 100"),
			undo: commands("ip rule del to SUBNET lookup 100 priority 500", "ip route del blackhole default table 100",
				"ip -6 rule del to SUBNET6 lookup 100 priority 500", "ip -6 route del blackhole default table 100")},
		{name: "thousands of foreign events", inject: shell(
			"for i in $(seq 0 1999); do echo route add 198.18.$((i / 250)).$((i % 250))/32 dev foreign0; done | ip -batch - && ip route flush root 198.18.0.0/15")},

		{name: "uplink set down and up", wait: waitOutage(aMoment), longest: 3 * time.Second, cutsAll: true, cuts: repair,
			inject: commands("ip link set eth0 down"), undo: uplinkUp},
		{name: "uplink's cable pulled", wait: waitOutage(aMoment), longest: 3 * time.Second, cutsAll: true, cuts: carrier,
			inject: func(_ context.Context, s scene) error { return s.host.Unplug() },
			undo:   func(_ context.Context, s scene) error { return s.host.Plug() }},
		{name: "uplink deleted and created again", wait: waitOutage(aMoment), longest: 3 * time.Second, cutsAll: true, cuts: repair,
			inject: commands("ip link del eth0"), undo: connectUplink},
		{name: "uplink's address gone", wait: waitOutage(20 * time.Second), shortest: 200 * time.Millisecond, longest: 20 * time.Second, cutsAll: true, cuts: repair,
			inject: commands("ip route add default dev foreign0 metric 5000", "ip -6 route add default dev foreign0 metric 5000",
				"ip addr del ADDR/24 dev eth0", "ip addr del ADDR6/64 dev eth0"),
			undo: all(configureUplink, commands("ip route del default dev foreign0", "ip -6 route del default dev foreign0"))},
		{name: "uplink re-addressed", wait: waitOutage(5 * time.Second), shortest: 2 * time.Second, longest: 5 * time.Second, cutsAll: true, cuts: repair,
			inject: all(commands("ip addr del ADDR/24 dev eth0", "ip addr del ADDR6/64 dev eth0"), addSecondAddress),
			undo:   all(removeSecondAddress, configureUplink)},
		{name: "uplink re-addressed, both addresses for a while", wait: waitUplink(),
			shortest: 12 * time.Second, longest: 15 * time.Second, cutsAll: true, cuts: 12 * time.Second,
			inject: all(addSecondAddress, commands("ip addr del ADDR/24 dev eth0", "ip addr del ADDR6/64 dev eth0")),
			undo:   all(configureUplink, removeSecondAddress)},
		{name: "uplink's MTU changed", longest: 2 * time.Second, cutsAll: true, cuts: repair,
			inject: commands("ip link set eth0 mtu 1400"), undo: commands("ip link set eth0 mtu 1500")},
		{name: "packets lost at random", wait: waitOutage(aMoment), shortest: time.Second, longest: 3 * time.Second, cutsAll: true, percent: lossPercent,
			inject: drop(fmt.Sprintf("numgen random mod 100 < %d", lossPercent)), undo: commands("nft delete table inet loss")},
		{name: "packets in one direction lost", wait: waitOutage(aMoment), longest: 3 * time.Second, cutsAll: true,
			inject: drop("meta l4proto != tcp"), undo: commands("nft delete table inet loss")},
		{name: "packets above a size lost", wait: waitOutage(aMoment), longest: 2 * time.Second,
			inject: drop("meta length > 1000"), undo: commands("nft delete table inet loss")},

		{name: "rules flushed", wait: waitResync(), inject: commands(
			"iptables -t nat -F FLANNEL-POSTRTG", "iptables -t nat -F POSTROUTING", "iptables -F FLANNEL-FWD",
			"ip6tables -t nat -F FLANNEL-POSTRTG", "ip6tables -t nat -F POSTROUTING", "ip6tables -F FLANNEL-FWD")},
		{name: "rules deleted one by one", wait: waitResync(), inject: deleteRules},
		{name: "foreign rules ahead of ours and among them", wait: waitResync(), shortest: 6 * time.Second, longest: 8 * time.Second,
			inject: all(foreignRules("-I"), deleteRules), undo: foreignRules("-D")},

		{name: "subnet.env deleted", inject: commands("rm /run/flannel/subnet.env")},
		{name: "subnet.env overwritten with nonsense", inject: shell("echo FLANNEL_SUBNET=nonsense >/run/flannel/subnet.env")},
		{name: "subnet.env replaced by a link", inject: commands("ln -sf /dev/null /run/flannel/subnet.env")},
		{name: "subnet.env replaced by a folder", longest: 2 * time.Second,
			inject: commands("rm /run/flannel/subnet.env", "mkdir /run/flannel/subnet.env"), undo: shell("if test -d /run/flannel/subnet.env; then rmdir /run/flannel/subnet.env; fi")},

		{name: "no space for subnet.env", longest: 3 * time.Second,
			inject: shell("head -c 1M /dev/zero >/run/flannel/filler 2>/dev/null; echo FLANNEL_SUBNET=nonsense >/run/flannel/subnet.env"),
			undo:   commands("rm /run/flannel/filler")},

		{name: "memory limited", restarts: true, wait: waitStart(), longest: 3 * time.Second, inject: limitMemory, undo: moreMemory},
		{name: "descriptors limited", wait: waitOutage(aMoment), longest: 3 * time.Second, inject: limitFiles(8), undo: limitFiles(math.MaxUint64)},
	}
}
