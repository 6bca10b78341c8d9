package main

import (
	"context"
	"fmt"

	"flannel/internal/ipfam"
	"flannel/lab"
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

// commands runs programs on the host one after the other; see lab.Host.Commands.
func commands(lines ...string) func(context.Context, scene) error {
	return func(ctx context.Context, s scene) error {
		subnets, err := s.peer.Subnet()
		if err != nil {
			return err
		}
		return s.host.Commands(ctx, subnets, lines...)
	}
}

func deleteFDB(ctx context.Context, s scene) error   { return s.host.DeleteFDB(ctx) }
func uplinkUp(ctx context.Context, s scene) error    { return s.host.SetUplinkUp(ctx) }
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
