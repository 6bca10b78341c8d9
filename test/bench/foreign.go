package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"

	"flannel/lab"
)

// The foreign events: half of them of routes, half of neighbors, half of them
// additions, half deletions.
const (
	foreignDevice = "other0"
	perSecond     = 1000
	beat          = 10 * time.Millisecond
)

// foreign measures the CPU time of the daemon while routes and neighbors of
// others come and go on another device of the host.
func (b *bench) foreign(ctx context.Context) ([]row, error) {
	c, err := b.getJoined(ctx)
	if err != nil {
		return nil, err
	}
	s, err := newStorm(c.host)
	if err != nil {
		return nil, fmt.Errorf("make a foreign device: %w", err)
	}
	defer s.close()
	if err := c.settle(ctx); err != nil {
		return nil, err
	}
	r := row{Measure: fmt.Sprintf("%d foreign events per second, of one core", perSecond), Unit: percent, Limit: atMost(1)}
	for range b.roundsOr(4) {
		used, err := c.load(ctx, foreignWindow, s.blow)
		if err == nil || errors.Is(err, errPassed) {
			r.Samples = append(r.Samples, used)
		}
		if err != nil {
			return []row{r}, err
		}
	}
	return []row{r}, nil
}

// storm makes changes that are none of the daemon's business.
type storm struct {
	handle *netlink.Handle
	link   netlink.Link
}

func newStorm(h *lab.Host) (*storm, error) {
	s := &storm{handle: h.Handle}
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: foreignDevice, TxQLen: -1})
	veth.PeerName = foreignDevice + "-peer"
	if err := s.handle.LinkAdd(veth); err != nil {
		return nil, err
	}
	s.link = veth
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(198, 51, 100, 1), Mask: net.CIDRMask(24, 32)}}
	if err := errors.Join(s.handle.LinkSetUp(veth), s.handle.AddrAdd(veth, address)); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *storm) close() error { return s.handle.LinkDel(s.link) }

// blow makes perSecond changes per second for foreignWindow, spread evenly.
func (s *storm) blow(ctx context.Context) error {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	const pairs = int(perSecond * beat / time.Second / 2)
	end := time.Now().Add(foreignWindow)
	for add := true; time.Now().Before(end); add = !add {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		for i := range pairs {
			if err := s.change(i, add); err != nil {
				return fmt.Errorf("foreign events: %w", err)
			}
		}
	}
	return nil
}

// change adds or deletes one route and one neighbor.
func (s *storm) change(i int, add bool) error {
	route := &netlink.Route{
		LinkIndex: s.link.Attrs().Index, Gw: net.IPv4(198, 51, 100, 2),
		Dst: &net.IPNet{IP: net.IPv4(198, 18, byte(i), 0), Mask: net.CIDRMask(24, 32)},
	}
	neighbor := &netlink.Neigh{
		LinkIndex: s.link.Attrs().Index, IP: net.IPv4(198, 51, 100, 10+byte(i)), State: netlink.NUD_PERMANENT,
		HardwareAddr: net.HardwareAddr{0x02, 0x77, 0, 0, 0, byte(i)},
	}
	if add {
		return errors.Join(s.handle.RouteReplace(route), s.handle.NeighSet(neighbor))
	}
	return errors.Join(s.handle.RouteDel(route), s.handle.NeighDel(neighbor))
}
