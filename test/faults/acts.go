package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
)

// commands runs programs on the host one after the other; see lab.Host.Commands.
// ROUTE and ROUTE6 stand for the destinations of the routes to the peer, METRIC
// and METRIC6 for their metrics.
func commands(lines ...string) act {
	return func(ctx context.Context, s scene) error {
		subnets, err := s.subnetsAtStart(s.drawn.peer)
		if err != nil {
			return err
		}
		var to, metric ipfam.Pair[string]
		for _, f := range ipfam.All() {
			to[f], metric[f] = subnets[f].String(), fmt.Sprint("metric ", peerMetric(subnets[f]))
			if s.backend == udp {
				to[f], metric[f] = networks[f], fmt.Sprint("metric ", udpMetric)
			}
		}
		fill := strings.NewReplacer("ROUTE6", to[ipfam.V6], "ROUTE", to[ipfam.V4], "METRIC6", metric[ipfam.V6], "METRIC", metric[ipfam.V4])
		replaced := make([]string, len(lines))
		for i, line := range lines {
			replaced[i] = fill.Replace(line)
		}
		return s.host.Commands(ctx, subnets, replaced...)
	}
}

// shell runs a line of the shell on the host.
func shell(line string) act {
	return func(ctx context.Context, s scene) error {
		_, err := s.host.Exec(ctx, "sh", "-c", line)
		return err
	}
}

// drop drops those packets from other hosts that match, but for what finds
// neighbors: without those a host stays unreachable for longer.
func drop(match string) act {
	return shell("nft 'table inet loss { chain in { type filter hook prerouting priority -400; iifname != eth0 accept; " +
		"icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept; " + match + " drop; }; }'")
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

// addSecondAddress gives the uplink addresses beside those of the lab, and makes
// the kernel keep them when these go. The default routes need no other source.
func addSecondAddress(ctx context.Context, s scene) error {
	if err := s.host.Sysctl("net/ipv4/conf/eth0/promote_secondaries", "1"); err != nil {
		return err
	}
	v4, v6 := s.secondAddress()
	return commands("ip addr add "+v4+" dev eth0", "ip -6 addr add "+v6+" dev eth0 nodad",
		"ip route replace default via 172.31.1.1 dev eth0", "ip -6 route replace default via fd00:31:0:1::1 dev eth0")(ctx, s)
}

func removeSecondAddress(ctx context.Context, s scene) error {
	v4, v6 := s.secondAddress()
	return commands("ip addr del "+v4+" dev eth0", "ip addr del "+v6+" dev eth0")(ctx, s)
}

func (s scene) secondAddress() (v4, v6 string) {
	n := 200 + s.host.Number
	return fmt.Sprintf("172.31.1.%d/24", n), fmt.Sprintf("fd00:31:0:1::%d/64", n)
}

// limitMemory leaves the daemon hardly more address space than it has. It may
// die of that.
func limitMemory(_ context.Context, s scene) error {
	pid := s.host.Flanneld().PID()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return err
	}
	var pages uint64
	if _, err := fmt.Sscan(string(text), &pages); err != nil {
		return err
	}
	return limit(pid, unix.RLIMIT_AS, pages*uint64(os.Getpagesize())+1<<20)
}

// moreMemory undoes it, and starts a daemon that has died.
func moreMemory(ctx context.Context, s scene) error {
	d := s.host.Flanneld()
	if err := limit(d.PID(), unix.RLIMIT_AS, math.MaxUint64); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	select {
	case <-d.Exited():
		return s.host.StartFlanneld()
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(200 * time.Millisecond):
		return nil
	}
}

// limitFiles sets how many descriptors the daemon may have.
func limitFiles(n uint64) act {
	return func(_ context.Context, s scene) error { return limit(s.host.Flanneld().PID(), unix.RLIMIT_NOFILE, n) }
}

// limit sets what a process may have of a resource, at most what it may have
// anyway.
func limit(pid, resource int, n uint64) error {
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, resource, nil, &limit); err != nil {
		return err
	}
	limit.Cur = min(n, limit.Max)
	return unix.Prlimit(pid, resource, &limit, nil)
}

// parallel calls do with the numbers below count, some at once.
func parallel(count int, do func(int) error) error {
	var group errgroup.Group
	group.SetLimit(16)
	for n := range count {
		group.Go(func() error { return do(n) })
	}
	return group.Wait()
}
