package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/lab"
)

const (
	// onDemandPeers is how many leases there are, activePeers how many of them
	// somebody talks to.
	onDemandPeers = 50_000
	activePeers   = 100
	// scanWindow is how long a pod scans each family.
	scanWindow = 5 * time.Second
)

const onDemandBackend = `"Backend": {"Type": "vxlan", "OnDemand": true}}`

// ondemand measures a node that has the entries of a peer only while somebody
// talks to it: how it joins, how long a first packet waits, what is in the
// kernel, and what a scan of the whole network costs.
func (b *bench) ondemand(ctx context.Context) (rows []row, err error) {
	if err := b.close(); err != nil {
		return nil, err
	}
	c, err := b.newCrowd(ctx, lab.Options{Network: `{` + dualRange + `, ` + onDemandBackend, Families: lab.Dual}, "vxlan", onDemandPeers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	rows, err = c.onDemandJoin(ctx, b.roundsOr(4))
	if err != nil {
		return rows, err
	}
	for _, measure := range []func(context.Context) ([]row, error){c.firstPackets, c.scans} {
		found, err := measure(ctx)
		rows = append(rows, found...)
		if err != nil {
			return rows, err
		}
	}
	return rows, nil
}

func (c *crowd) onDemandJoin(ctx context.Context, rounds int) ([]row, error) {
	took := row{Measure: fmt.Sprintf("join of %d peers on demand, start to ready", c.peers), Unit: seconds}
	peers := row{Measure: "  from its lease on: list, plan, kernel", Unit: seconds, Limit: atMost(1)}
	memory := row{Measure: "  peak memory", Unit: megabytes}
	for range rounds {
		if err := c.leaveBoth(ctx); err != nil {
			return nil, err
		}
		start := time.Now()
		if err := c.host.StartFlanneld(); err != nil {
			return nil, err
		}
		limited, cancel := context.WithTimeout(ctx, patience)
		err := c.host.WaitReady(limited)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("%w\n%s", err, c.host.Flanneld().Tail(5))
		}
		join := time.Since(start)
		if err := c.passLogged(ctx); err != nil {
			return nil, err
		}
		began, err := timeOf(c.host.Log(), "lease acquired")
		if err != nil {
			return nil, err
		}
		ended, err := timeOf(c.host.Log(), "node ready")
		if err != nil {
			return nil, err
		}
		peak, err := c.daemon().peakMemory()
		if err != nil {
			return nil, err
		}
		took.Samples = append(took.Samples, inSeconds(join))
		peers.Samples = append(peers.Samples, inSeconds(ended.Sub(began)))
		memory.Samples = append(memory.Samples, float64(peak)/1e6)
	}
	return []row{took, peers, memory}, nil
}

// passLogged waits until the daemon, which is ready, has also logged its first
// pass: these lines do not belong to what is measured next.
func (c *crowd) passLogged(ctx context.Context) error {
	return until(ctx, "the first pass in the log", 10*time.Millisecond, func() (bool, error) {
		log := c.host.Log()
		return strings.LastIndex(log, `msg="kernel updated"`) > strings.LastIndex(log, `msg="lease acquired"`), nil
	})
}

// timeOf returns when a message was logged for the last time.
func timeOf(log, message string) (time.Time, error) {
	lines := strings.Split(log, "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.Contains(lines[i], `msg="`+message+`"`) {
			at, _, _ := strings.Cut(strings.TrimPrefix(lines[i], "time="), " ")
			return time.Parse(time.RFC3339Nano, at)
		}
	}
	return time.Time{}, fmt.Errorf("the log does not say %q", message)
}

// leaveBoth ends the daemon and removes its devices, in both families.
func (c *crowd) leaveBoth(ctx context.Context) error {
	if !c.running() {
		return nil
	}
	if err := c.host.Stop(); err != nil {
		return err
	}
	for _, command := range []string{"ip link del flannel.1", "ip link del flannel-v6.1", "rm -f " + lab.DefaultSubnetFile} {
		if _, err := c.host.Exec(ctx, strings.Fields(command)...); err != nil {
			return err
		}
	}
	return nil
}

// firstPackets measures how long the first packet to a peer needs from the
// sender to the router, beside the second, and then counts what is in the
// kernel.
func (c *crowd) firstPackets(ctx context.Context) ([]row, error) {
	tap, err := openTap(c.lab)
	if err != nil {
		return nil, err
	}
	defer tap.close()
	var conn *net.UDPConn
	err = c.host.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", &net.UDPAddr{})
		return err
	})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	names := ipfam.Pair[string]{"IPv4", "IPv6"}
	var rows []row
	for _, f := range ipfam.All() {
		first := row{Measure: fmt.Sprintf("first packet to a peer, %s, sender to router", names[f]), Unit: milliseconds, Limit: atMost(2)}
		second := row{Measure: "  the second packet", Unit: milliseconds}
		for i := range activePeers {
			p := nthPeer(i * (onDemandPeers / activePeers))
			to := ipfam.Pair[netip.Addr]{p.subnet.Addr().Next(), p.subnet6.Addr().Next()}[f]
			for _, r := range []*row{&first, &second} {
				start := time.Now()
				if _, err := conn.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(to, 9)); err != nil {
					return nil, err
				}
				if err := tap.await(ctx, ipfam.Pair[netip.Addr]{p.public, p.public6}[f]); err != nil {
					return nil, err
				}
				r.Samples = append(r.Samples, inMilliseconds(time.Since(start)))
			}
		}
		entries, err := c.entries(f)
		if err != nil {
			return nil, err
		}
		kept := row{Measure: fmt.Sprintf("  routes, neighbours or FDB entries with %d active peers", activePeers), Samples: entries, Limit: atMost(1.1 * activePeers)}
		rows = append(rows, first, second, kept)
	}
	return rows, nil
}

// entries counts what the kernel holds on the device of a family: routes,
// permanent neighbors and FDB entries.
func (c *crowd) entries(f ipfam.Family) ([]float64, error) {
	link, err := c.host.Interface(ipfam.Pair[string]{"flannel.1", "flannel-v6.1"}[f])
	if err != nil {
		return nil, err
	}
	dev := link.Attrs().Index
	routes, err := c.host.Handle.RouteListFiltered(f.AF(),
		&netlink.Route{LinkIndex: dev, Protocol: kernel.RouteProtocol}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	neighbors, err := c.host.Handle.NeighList(dev, f.AF())
	if err != nil {
		return nil, fmt.Errorf("list neighbors: %w", err)
	}
	fdb, err := c.host.Handle.NeighList(dev, unix.AF_BRIDGE)
	if err != nil {
		return nil, fmt.Errorf("list FDB entries: %w", err)
	}
	permanent := 0
	for _, n := range neighbors {
		if n.State&netlink.NUD_PERMANENT != 0 {
			permanent++
		}
	}
	return []float64{float64(len(routes)), float64(permanent), float64(len(fdb))}, nil
}

// scans lets a pod try the whole network in each family, as fast as it can.
func (c *crowd) scans(context.Context) ([]row, error) {
	pod, err := c.host.AddPod("pod1")
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, f := range ipfam.All() {
		logged := strings.Count(c.host.Log(), "\n")
		started, err := c.daemon().cpu()
		if err != nil {
			return nil, err
		}
		tried, took, err := scan(pod, f)
		if err != nil {
			return nil, err
		}
		ended, err := c.daemon().cpu()
		if err != nil {
			return nil, err
		}
		peak, err := c.daemon().peakMemory()
		if err != nil {
			return nil, err
		}
		lines := strings.Count(c.host.Log(), "\n") - logged
		rows = append(rows,
			row{Measure: fmt.Sprintf("a pod scans %s: addresses per second", ipfam.Pair[string]{"IPv4", "IPv6"}[f]), Samples: []float64{float64(tried) / took.Seconds()}},
			row{Measure: "  CPU time of the daemon, of one core", Unit: percent, Samples: []float64{100 * (ended - started).Seconds() / took.Seconds()}},
			row{Measure: "  peak memory", Unit: megabytes, Samples: []float64{float64(peak) / 1e6}},
			row{Measure: "  lines in the log", Samples: []float64{float64(lines)}, Limit: atMost(1)},
		)
	}
	return rows, nil
}

// scan sends to one address of each possible subnet, over and over.
func scan(pod *lab.Pod, f ipfam.Family) (tried int, took time.Duration, err error) {
	var conn *net.UDPConn
	err = pod.Do(func() (err error) {
		conn, err = net.ListenUDP(ipfam.Pair[string]{"udp4", "udp6"}[f], &net.UDPAddr{})
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	start := time.Now()
	for time.Since(start) < scanWindow {
		// An odd step visits every subnet once in a round, near ones far apart.
		n := uint16(tried * 40503)
		to := netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), byte(tried>>16) | 1})
		if f == ipfam.V6 {
			to = netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x10, 6: byte(n >> 8), 7: byte(n), 14: byte(tried >> 16), 15: 1})
		}
		_, _ = conn.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(to, 9)) // nobody may be there
		tried++
	}
	return tried, time.Since(start), nil
}
