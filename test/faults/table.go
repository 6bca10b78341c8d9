package main

import (
	"context"
	"math"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/lab"
)

// fault is a line of the table.
type fault struct {
	name string
	// backend is the only one that the fault is for; empty means all.
	backend string
	// store marks what happens to the store: one such fault at a time.
	store bool
	// deadline is the time to recover after the fault was undone, 5s when it is
	// zero; hold names the documented wait that makes it longer.
	deadline time.Duration
	hold     string
	// shortest and longest bound the time between inject and undo.
	shortest, longest time.Duration
	// cutsAll says that packets from and to the host may be lost until undo;
	// cuts is how long after that (for a fault without undo: after inject).
	cutsAll bool
	cuts    time.Duration

	// stops says that the daemon does not run until undo: that cuts if packets
	// pass the daemon. restarts says that it is another process then.
	stops, restarts bool

	inject, undo act
}

// act does something to a host.
type act func(context.Context, scene) error

// scene is where a fault happens: on host, to what it has of peer.
type scene struct {
	lab        *lab.Lab
	backend    string
	host, peer *lab.Host
	drawn      drawn
}

// Usual values of the table.
const (
	deadline = 5 * time.Second
	repair   = 2 * time.Second
	restart  = 10 * time.Second
)

const (
	holdResync = "--iptables-resync, 5s"
	holdStart  = "a start has no deadline but the store's answer"
	holdWiped  = "the guard, two lists 30s apart"
)

// faults is the table.
func faults() []fault {
	return []fault{
		{name: "daemon killed", restarts: true, deadline: restart, hold: holdStart, longest: time.Second, inject: kill, undo: start},
		{name: "daemon stopped and continued", stops: true, shortest: time.Second, longest: 10 * time.Second,
			inject: send(syscall.SIGSTOP), undo: send(syscall.SIGCONT)},
		{name: "daemon terminated in its first pass", restarts: true, deadline: restart, hold: holdStart, longest: 300 * time.Millisecond,
			inject: firstPass, undo: start},

		{name: "device deleted", backend: vxlan, cuts: repair, inject: commands("ip link del flannel.1", "ip link del flannel-v6.1")},
		{name: "device set down", backend: vxlan, cuts: repair, inject: commands("ip link set flannel.1 down", "ip link set flannel-v6.1 down")},
		{name: "device's MAC changed", backend: vxlan, cuts: repair, inject: commands(
			"ip link set flannel.1 address 02:00:00:00:00:98", "ip link set flannel-v6.1 address 02:00:00:00:00:98")},
		{name: "device's MTU changed", backend: vxlan, cuts: repair, inject: commands("ip link set flannel.1 mtu 1300", "ip link set flannel-v6.1 mtu 1300")},
		{name: "device's address deleted", backend: vxlan, cuts: repair, inject: commands("ip addr flush dev flannel.1", "ip -6 addr flush dev flannel-v6.1 scope global")},
		{name: "device deleted", backend: udp, cuts: repair, inject: commands("ip link del flannel0")},
		{name: "device set down", backend: udp, cuts: repair, inject: commands("ip link set flannel0 down")},
		{name: "device's MTU changed", backend: udp, cuts: repair, inject: commands("ip link set flannel0 mtu 1300")},
		{name: "device's address deleted", backend: udp, cuts: repair, inject: commands("ip addr flush dev flannel0", "ip -6 addr flush dev flannel0")},
		{name: "neighbour deleted", backend: vxlan, cuts: repair, inject: commands("ip neigh del VTEP dev flannel.1", "ip -6 neigh del VTEP6 dev flannel-v6.1")},
		{name: "FDB entry deleted", backend: vxlan, cuts: repair, inject: deleteFDB},
		{name: "route deleted", cuts: repair, inject: commands("ip route del ROUTE", "ip -6 route del ROUTE6")},
		{name: "routes flushed", cuts: repair, inject: commands("ip route flush proto 70", "ip -6 route flush proto 70")},
		{name: "foreign routes beside ours", longest: time.Second,
			inject: commands("ip route add ROUTE dev foreign0 metric 4000 proto static", "ip -6 route add ROUTE6 dev foreign0 metric 4000 proto static"),
			undo:   commands("ip route del ROUTE dev foreign0", "ip -6 route del ROUTE6 dev foreign0")},
		{name: "thousands of foreign events", inject: shell(
			"for i in $(seq 0 1999); do echo route add 198.18.$((i / 250)).$((i % 250))/32 dev foreign0; done | ip -batch - && ip route flush root 198.18.0.0/15")},

		{name: "uplink set down and up", longest: 3 * time.Second, cutsAll: true, cuts: repair,
			inject: commands("ip link set eth0 down"), undo: uplinkUp},
		{name: "uplink's cable pulled", longest: 3 * time.Second, cutsAll: true, cuts: repair,
			inject: func(_ context.Context, s scene) error { return s.host.Unplug() },
			undo:   func(_ context.Context, s scene) error { return s.host.Plug() }},
		{name: "uplink deleted and made again", longest: 3 * time.Second, cutsAll: true, cuts: repair,
			inject: commands("ip link del eth0"), undo: connectUplink},
		{name: "uplink's address gone", shortest: 200 * time.Millisecond, longest: 20 * time.Second, cutsAll: true, cuts: repair,
			inject: commands("ip route add default dev foreign0 metric 5000", "ip -6 route add default dev foreign0 metric 5000",
				"ip addr del ADDR/24 dev eth0", "ip addr del ADDR6/64 dev eth0"),
			undo: all(configureUplink, commands("ip route del default dev foreign0", "ip -6 route del default dev foreign0"))},
		{name: "uplink's MTU changed", longest: 2 * time.Second, cutsAll: true, cuts: repair,
			inject: commands("ip link set eth0 mtu 1400"), undo: commands("ip link set eth0 mtu 1500")},
		{name: "packets lost at random", longest: 3 * time.Second, cutsAll: true,
			inject: shell("nft 'table inet loss { chain in { type filter hook prerouting priority -400; iifname eth0 numgen random mod 100 < 30 drop; }; }'"),
			undo:   commands("nft delete table inet loss")},
		{name: "packets in one direction lost", longest: 3 * time.Second, cutsAll: true,
			inject: shell("nft 'table inet loss { chain in { type filter hook prerouting priority -400; iifname eth0 ip protocol != tcp drop; iifname eth0 ip6 nexthdr != tcp ip6 nexthdr != icmpv6 drop; }; }'"),
			undo:   commands("nft delete table inet loss")},

		{name: "rules flushed", deadline: 10 * time.Second, hold: holdResync, inject: commands(
			"iptables -t nat -F FLANNEL-POSTRTG", "iptables -t nat -F POSTROUTING", "iptables -F FLANNEL-FWD",
			"ip6tables -t nat -F FLANNEL-POSTRTG", "ip6tables -t nat -F POSTROUTING", "ip6tables -F FLANNEL-FWD")},
		{name: "one rule deleted", deadline: 10 * time.Second, hold: holdResync, inject: commands(
			"iptables -t nat -D FLANNEL-POSTRTG 1", "ip6tables -D FLANNEL-FWD 1")},

		{name: "subnet.env deleted", inject: commands("rm /run/flannel/subnet.env")},
		{name: "subnet.env garbled", inject: shell("echo FLANNEL_SUBNET=nonsense >/run/flannel/subnet.env")},
		{name: "subnet.env a link", inject: commands("ln -sf /dev/null /run/flannel/subnet.env")},
		{name: "subnet.env a folder", longest: 2 * time.Second,
			inject: commands("rm /run/flannel/subnet.env", "mkdir /run/flannel/subnet.env"), undo: shell("if test -d /run/flannel/subnet.env; then rmdir /run/flannel/subnet.env; fi")},

		{name: "own lease deleted", store: true, cuts: repair, inject: deleteLease},
		{name: "hostile records", store: true, longest: 2 * time.Second, inject: hostile(true), undo: hostile(false)},
		{name: "etcd stopped", store: true, longest: 5 * time.Second, inject: etcdStop, undo: etcdStart},
		{name: "etcd killed", store: true, longest: 2 * time.Second, inject: func(_ context.Context, s scene) error { return s.lab.Etcd.Kill() }, undo: etcdStart},
		{name: "etcd compacted while a daemon is stopped", store: true, stops: true, longest: 2 * time.Second,
			inject: all(send(syscall.SIGSTOP), func(ctx context.Context, s scene) error { return s.lab.Etcd.Compact(ctx) }), undo: send(syscall.SIGCONT)},
		{name: "etcd wiped", store: true, deadline: 70 * time.Second, hold: holdWiped, inject: etcdWipe},

		{name: "descriptors limited", longest: 3 * time.Second, inject: limitFiles(8), undo: limitFiles(math.MaxUint64)},
	}
}

// commands runs programs on the host one after the other; see lab.Host.Commands.
// ROUTE and ROUTE6 stand for the destinations of the routes to the peer.
func commands(lines ...string) act {
	return func(ctx context.Context, s scene) error {
		route := strings.NewReplacer("ROUTE", "SUBNET")
		if s.backend == udp {
			route = strings.NewReplacer("ROUTE6", networks[ipfam.V6], "ROUTE", networks[ipfam.V4])
		}
		replaced := make([]string, len(lines))
		for i, line := range lines {
			replaced[i] = route.Replace(line)
		}
		return s.host.Commands(ctx, s.peer, replaced...)
	}
}

// shell runs a line of the shell on the host.
func shell(line string) act {
	return func(ctx context.Context, s scene) error {
		_, err := s.host.Exec(ctx, "sh", "-c", line)
		return err
	}
}

func all(acts ...act) act {
	return func(ctx context.Context, s scene) error {
		for _, a := range acts {
			if err := a(ctx, s); err != nil {
				return err
			}
		}
		return nil
	}
}

func kill(_ context.Context, s scene) error  { return s.host.Kill() }
func start(_ context.Context, s scene) error { return s.host.StartFlanneld() }

func send(number syscall.Signal) act {
	return func(_ context.Context, s scene) error { return syscall.Kill(s.host.Flanneld().PID(), number) }
}

// firstPass ends a daemon that has just been started.
func firstPass(ctx context.Context, s scene) error {
	if err := s.host.Kill(); err != nil {
		return err
	}
	if err := s.host.StartFlanneld(); err != nil {
		return err
	}
	if err := pause(ctx, time.Duration(s.drawn.number%300)*time.Millisecond); err != nil {
		return err
	}
	return s.host.Stop()
}

func deleteFDB(ctx context.Context, s scene) error { return s.host.DeleteFDB(ctx) }
func uplinkUp(ctx context.Context, s scene) error  { return s.host.SetUplinkUp(ctx) }

func configureUplink(_ context.Context, s scene) error { return s.host.ConfigureUplink() }
func connectUplink(_ context.Context, s scene) error   { return s.host.ConnectUplink() }

func etcdStop(_ context.Context, s scene) error    { return s.lab.Etcd.Stop() }
func etcdStart(ctx context.Context, s scene) error { return s.lab.Etcd.Start(ctx) }

// etcdWipe leaves nothing but the configuration, as somebody does who sets up
// etcd anew.
func etcdWipe(ctx context.Context, s scene) error {
	config, err := s.lab.Etcd.List(ctx, configKey)
	if err != nil {
		return err
	}
	if err := s.lab.Etcd.Stop(); err != nil {
		return err
	}
	if err := s.lab.Etcd.Wipe(); err != nil {
		return err
	}
	if err := s.lab.Etcd.Start(ctx); err != nil {
		return err
	}
	return s.lab.Etcd.Put(ctx, configKey, config[configKey])
}

const configKey = lab.DefaultPrefix + "/config"

func deleteLease(ctx context.Context, s scene) error {
	subnets, err := s.host.Subnet()
	if err != nil {
		return err
	}
	return s.lab.Etcd.Delete(ctx, recordKey(subnets))
}

// hostile puts or deletes records that no node writes. Their subnets are none
// that a host of the lab gets, or are no subnets.
func hostile(put bool) act {
	return func(ctx context.Context, s scene) error {
		good := `{"PublicIP":"172.31.1.99","PublicIPv6":"fd00:31:0:1::99","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}}`
		values := map[string]string{
			"10.244.200.0-24":                     "not JSON",
			"10.244.201.0-24":                     "",
			"10.244.202.0-24":                     `{"PublicIP":"` + s.host.Addr(ipfam.V4).String() + `x"}`,
			"10.244.203.0-24":                     `{"PublicIP":"127.0.0.1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}}`,
			"10.244.204.0-24":                     `{"PublicIP":"172.31.1.99","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"ff:ff:ff:ff:ff:ff"}}`,
			"10.244.205.0-24":                     `{"PublicIP":"172.31.1.99","BackendType":"vxlan","BackendData":"` + strings.Repeat("x", 100_000) + `"}`,
			"10.244.206.0-24":                     `[[[[[[[[[[`,
			"0.0.0.0-0":                           good,
			"172.31.0.0-16":                       good,
			"10.244.0.0-16":                       good,
			"10.245.1.0-24":                       good,
			"10.244.207.0-33":                     good,
			"10.244.208.0":                        good,
			"nonsense":                            good,
			"10.244.209.0-24&fd00:31:0:1::-64":    good,
			"10.244.210.0-24&fd00:10:244::-not":   good,
			"10.244.211.0-24&10.244.212.0-24&x-y": good,
		}
		for key, value := range values {
			key = subnetsPrefix + key
			var err error
			if put {
				err = s.lab.Etcd.Put(ctx, key, value)
			} else {
				err = s.lab.Etcd.Delete(ctx, key)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// limitFiles sets how many descriptors the daemon may have, at most what it
// may have anyway.
func limitFiles(n uint64) act {
	return func(_ context.Context, s scene) error {
		var limit unix.Rlimit
		pid := s.host.Flanneld().PID()
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
			return err
		}
		limit.Cur = min(n, limit.Max)
		return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil)
	}
}
