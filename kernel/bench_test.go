package kernel_test

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/kernel"
)

const manyPeers = 5000

func peers(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i + 2
	}
	return out
}

// BenchmarkBareLoop writes 5,000 peers one call after the other: what there is
// to compare with.
func BenchmarkBareLoop(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		n := newNode(b)
		state := single(n.uplink, peers(manyPeers)...)
		apply(b, n, single(n.uplink))
		dev := n.Index("flannel.1")
		b.StartTimer()
		bareLoop(b, n.Handle, dev, state)
	}
}

func bareLoop(b *testing.B, h *netlink.Handle, dev int, state kernel.State) {
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	for i, r := range state.Routes {
		mac := net.HardwareAddr(state.FDB[i].MAC[:])
		check(h.NeighSet(&netlink.Neigh{
			LinkIndex: dev, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF,
			IP: net.IP(state.FDB[i].Dst.AsSlice()), HardwareAddr: mac,
		}))
		gateway := net.IP(r.Via.AsSlice())
		check(h.NeighSet(&netlink.Neigh{LinkIndex: dev, State: netlink.NUD_PERMANENT, IP: gateway, HardwareAddr: mac}))
		check(h.RouteAdd(&netlink.Route{
			LinkIndex: dev, Gw: gateway, Flags: int(netlink.FLAG_ONLINK),
			Dst: &net.IPNet{IP: net.IP(r.Dst.Addr().AsSlice()), Mask: net.CIDRMask(r.Dst.Bits(), 32)},
		}))
	}
}

func BenchmarkFirstApply(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		n := newNode(b)
		follow(b, n.Reconciler)
		state := single(n.uplink, peers(manyPeers)...)
		apply(b, n, single(n.uplink))
		b.StartTimer()
		apply(b, n, state)
	}
}

func BenchmarkResync(b *testing.B) {
	n := newNode(b)
	follow(b, n.Reconciler)
	state := single(n.uplink, peers(manyPeers)...)
	apply(b, n, state)
	b.ReportAllocs()
	for b.Loop() {
		n.Invalidate()
		if stats := apply(b, n, state); stats.Changed() != 0 {
			b.Fatal(stats)
		}
	}
}

func BenchmarkUnchanged(b *testing.B) {
	n := newNode(b)
	state := single(n.uplink, peers(manyPeers)...)
	apply(b, n, state)
	b.ReportAllocs()
	for b.Loop() {
		apply(b, n, state)
	}
}

func BenchmarkOnePeerOfMany(b *testing.B) {
	n := newNode(b)
	follow(b, n.Reconciler)
	few, many := single(n.uplink, peers(manyPeers)[1:]...), single(n.uplink, peers(manyPeers)...)
	apply(b, n, many)
	b.ReportAllocs()
	for b.Loop() {
		apply(b, n, few)
		apply(b, n, many)
	}
}
