package main

import (
	"context"
	"fmt"
	"strings"

	"flannel/internal/ipfam"
	"flannel/internal/lab"
)

// scene is where a fault happens: on host, to what it has of peer.
type scene struct {
	host, peer *lab.Host
	round      int
}

// fault is something that happens to a host. The time counts from do.
type fault struct {
	name    string
	flannel string
	prepare func(context.Context, scene) error
	do      func(context.Context, scene) error
	// changes are the texts in the hosts' state that are different afterwards,
	// old and new in turn.
	changes func(scene) []string
}

const never = "never"

// faults lists what the overlay must recover from.
func faults() []fault {
	return []fault{
		{name: "a route deleted", flannel: never, do: commands("ip route del SUBNET", "ip -6 route del SUBNET6")},
		{name: "routes flushed", flannel: never, do: commands("ip route flush dev flannel.1", "ip -6 route flush dev flannel-v6.1")},
		{name: "a neighbour deleted", flannel: never, do: commands("ip neigh del VTEP dev flannel.1", "ip -6 neigh del VTEP6 dev flannel-v6.1")},
		{name: "an FDB entry deleted", flannel: never, do: deleteFDB},
		{name: "the device deleted", flannel: "without peers", do: commands("ip link del flannel.1", "ip link del flannel-v6.1")},
		{name: "the device set down", do: commands("ip link set flannel.1 down", "ip link set flannel-v6.1 down")},
		{name: "the device's address removed", do: commands("ip addr flush dev flannel.1", "ip -6 addr flush dev flannel-v6.1")},
		{name: "the device's MAC changed", do: commands(
			"ip link set flannel.1 address 02:00:00:00:00:98", "ip link set flannel-v6.1 address 02:00:00:00:00:98")},
		{name: "the uplink set down and up", prepare: commands("ip link set eth0 down"), do: uplinkUp},
		{name: "the uplink deleted and made again", prepare: commands("ip link del eth0"), do: connectUplink},
		{name: "the uplink's address changed", do: readdress, changes: readdressed},
	}
}

// commands runs programs on the host one after the other. SUBNET, SUBNET6,
// VTEP and VTEP6 stand for what the peer has.
func commands(lines ...string) func(context.Context, scene) error {
	return func(ctx context.Context, s scene) error {
		subnets, err := s.peer.Subnet()
		if err != nil {
			return err
		}
		fill := strings.NewReplacer(
			"SUBNET6", subnets[ipfam.V6].String(), "SUBNET", subnets[ipfam.V4].String(),
			"VTEP6", subnets[ipfam.V6].Addr().String(), "VTEP", subnets[ipfam.V4].Addr().String(),
		)
		for _, line := range lines {
			if _, err := s.host.Exec(ctx, strings.Fields(fill.Replace(line))...); err != nil {
				return err
			}
		}
		return nil
	}
}

// deleteFDB deletes the first entry of each device.
func deleteFDB(ctx context.Context, s scene) error {
	for _, dev := range []string{"flannel.1", "flannel-v6.1"} {
		out, err := s.host.Exec(ctx, "bridge", "fdb", "show", "dev", dev)
		if err != nil {
			return err
		}
		mac, rest, _ := strings.Cut(out, " ")
		if !strings.HasPrefix(rest, "dst ") {
			return fmt.Errorf("no FDB entry of %s in %q", dev, out)
		}
		dst := strings.Fields(rest)[1]
		if _, err := s.host.Exec(ctx, "bridge", "fdb", "del", mac, "dev", dev, "dst", dst); err != nil {
			return err
		}
	}
	return nil
}

// uplinkUp sets the uplink up. The kernel has dropped its IPv6 address, so it
// gets that again.
func uplinkUp(ctx context.Context, s scene) error {
	if _, err := s.host.Exec(ctx, "ip", "link", "set", lab.Uplink, "up"); err != nil {
		return err
	}
	return s.host.ConfigureUplink()
}

func connectUplink(_ context.Context, s scene) error { return s.host.ConnectUplink() }

// uplinkAddress is the IPv4 address in a round; before the first round it is
// what the lab gave.
func (s scene) uplinkAddress(round int) string {
	if round < 0 {
		return s.host.Addr(ipfam.V4).String()
	}
	return fmt.Sprintf("172.31.%d.%d", s.host.Link, 100+round)
}

func readdress(ctx context.Context, s scene) error {
	return commands(
		"ip addr del "+s.uplinkAddress(s.round-1)+"/24 dev eth0",
		"ip addr add "+s.uplinkAddress(s.round)+"/24 dev eth0",
	)(ctx, s)
}

func readdressed(s scene) []string {
	return []string{" " + s.uplinkAddress(s.round-1) + "\n", " " + s.uplinkAddress(s.round) + "\n"}
}
