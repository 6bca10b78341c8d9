package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/kernel"
	"flannel/lab"
)

// hostgw measures a node that joins the large network with plain routes: from
// the start of the program to the last route in the kernel.
func (b *bench) hostgw(ctx context.Context) (rows []row, err error) {
	if err := b.close(); err != nil {
		return nil, err
	}
	c, err := b.newCrowd(ctx, lab.Options{Network: `{` + crowdRange + `, "Backend": {"Type": "host-gw"}}`}, "host-gw", b.peers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	// All peers are on the link, as host-gw wants it.
	if _, err := c.host.Exec(ctx, "ip", "route", "add", "100.64.0.0/10", "dev", lab.Uplink); err != nil {
		return nil, err
	}
	took := row{Measure: fmt.Sprintf("join of %d peers, host-gw, start to last route", b.peers), Unit: seconds, Limit: atMost(0.25), Flannel: "29.5 s"}
	memory := row{Measure: "  peak memory", Unit: megabytes, Flannel: "62 MB"}
	for range b.roundsOr(5) {
		join, err := c.startUntil(ctx, c.peers, c.completePlain)
		if err != nil {
			return nil, err
		}
		peak, err := c.daemon().peakMemory()
		if err != nil {
			return nil, err
		}
		took.Samples = append(took.Samples, inSeconds(join))
		memory.Samples = append(memory.Samples, float64(peak)/1e6)
		if err := c.leavePlain(ctx); err != nil {
			return nil, err
		}
	}
	return []row{took, memory}, nil
}

// completePlain makes sure that the kernel holds a route per peer.
func (c *crowd) completePlain() error {
	routes, err := c.host.Handle.RouteListFiltered(unix.AF_INET, &netlink.Route{Protocol: kernel.RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err == nil && len(routes) != c.peers {
		err = fmt.Errorf("%d routes for %d peers", len(routes), c.peers)
	}
	return err
}

// leavePlain ends the daemon and removes what it has left behind.
func (c *crowd) leavePlain(ctx context.Context) error {
	if err := c.host.Stop(); err != nil {
		return err
	}
	for _, command := range [][]string{
		{"ip", "route", "flush", "proto", fmt.Sprint(kernel.RouteProtocol)}, {"rm", "-f", lab.DefaultSubnetFile},
	} {
		if _, err := c.host.Exec(ctx, command...); err != nil {
			return err
		}
	}
	return nil
}
