package probe

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/internal/testkit/nstest"
	"flannel/kernel"
)

// TestEntriesOfSilentPeersGo: probes follow traffic, and must not keep what it has
// left, on the real kernel. Entries go after a shorter time than that between the
// probes of one peer would be if the peers took turns.
func TestEntriesOfSilentPeersGo(t *testing.T) {
	ns := nstest.New(t)
	uplink := ns.AddUplink("eth0", "192.0.2.1/24")
	network, own := netip.MustParsePrefix("10.64.0.0/16"), netip.MustParsePrefix("10.64.1.0/24")
	state := kernel.State{
		Devices: []kernel.Device{{
			Name: "flannel.1", MTU: 1450, MAC: kernel.MAC{2, 0, 0, 0, 0, 1}, Addrs: []netip.Prefix{netip.MustParsePrefix("10.64.1.0/32")},
			VXLAN: &kernel.VXLAN{VNI: 1, Local: netip.MustParseAddr("192.0.2.1"), Uplink: uplink},
		}},
		Routes:         []kernel.Route{{Dst: network, Dev: "flannel.1"}},
		CatchAllRoutes: []kernel.CatchAllRoute{{Dev: "flannel.1", Network: network, Own: own}},
	}
	onDemand := vxlan
	onDemand.OnDemand = true
	var peers []backend.PeerStatus
	for i := 2; i < 6; i++ {
		p := peerAt(i, onDemand)
		mac := kernel.MAC{2, 0, 0, 0, 0, byte(i)}
		peers = append(peers, p)
		state.OnDemandPeers = append(state.OnDemandPeers, kernel.OnDemandPeer{
			Subnet:   p.Subnet,
			Route:    kernel.Route{Dst: p.Subnet, Via: deviceOf(p), Dev: "flannel.1", OnLink: true},
			Neighbor: kernel.Neighbor{Dev: "flannel.1", Addr: deviceOf(p), MAC: mac},
			FDB:      kernel.FDBEntry{Dev: "flannel.1", MAC: mac, Dst: p.Via},
		})
	}
	prober := New(Options{
		Log: slog.New(slog.DiscardHandler), Metrics: &world{verdicts: map[string]int{}}, Report: func(string) {},
		open: func(ctx context.Context, f ipfam.Family, id uint16) (s socket, err error) {
			ns.Do(func() { s, err = open(ctx, f, id) })
			return s, err
		},
	})
	prober.SetPeers(peers)
	k, err := kernel.New(kernel.Options{
		Log: slog.New(slog.DiscardHandler), Scope: kernel.Scope{Networks: []netip.Prefix{network}}, Namespace: int(ns.Namespace),
		Unused: 1500 * time.Millisecond, Installed: prober.Touch,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	ctx, stop := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	defer func() {
		stop()
		_ = group.Wait()
	}()
	listens := make(chan struct{}, 1)
	group.Go(func() error {
		return k.Run(ctx, func() {
			select {
			case listens <- struct{}{}:
			default:
			}
		})
	})
	group.Go(func() error { return prober.Run(ctx) })
	<-listens
	if _, err := k.Apply(ctx, state, false); err != nil {
		t.Fatal(err)
	}
	idle := ns.Dump()
	ns.Do(func() {
		for _, p := range peers {
			conn, failed := net.Dial("udp", fmt.Sprintf("%s:9", deviceOf(p).Next().Next()))
			if failed != nil {
				err = failed
				return
			}
			_, _ = conn.Write([]byte("x"))
			_ = conn.Close()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the entries", func() bool { return strings.Contains(ns.Dump(), deviceOf(peers[0]).String()) })
	eventually.Says(t, func() (string, bool) {
		text := ns.Dump()
		return text, text == idle
	})
	if k.Counters().MissesAnswered == 0 {
		t.Error("the kernel has not asked")
	}
}
