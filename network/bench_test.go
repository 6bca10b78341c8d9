package network

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"flannel/backend"
	"flannel/backend/backendtest"
	"flannel/backend/vxlan"
	"flannel/internal/health"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/subnet"
)

// manyLeases returns n leases in the order of their names, ours first.
func manyLeases(n int) []*subnet.Lease {
	leases := make([]*subnet.Lease, n)
	for i := range leases {
		l := &subnet.Lease{Name: fmt.Sprintf("%05d", i), Precedence: subnet.Precedence{Age: int64(i + 1)}}
		l.Subnet[ipfam.V4] = netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255))
		l.Attrs.BackendType = "vxlan"
		l.Attrs.PublicIP[ipfam.V4] = netip.MustParseAddr(fmt.Sprintf("172.16.%d.%d", i>>8, i&255))
		l.Attrs.Data[ipfam.V4] = fmt.Sprintf(`{"VNI":1,"VtepMAC":"02:00:00:00:%02x:%02x"}`, i>>8, i&255)
		leases[i] = l
	}
	return leases
}

// BenchmarkOnePeerMoreOrLess is the work of a pass before the kernel is asked,
// when one of 5,000 peers comes or goes.
func BenchmarkOnePeerMoreOrLess(b *testing.B) {
	leases := manyLeases(5000)
	less := slices.Delete(slices.Clone(leases), 2500, 2501)
	n := New(Options{Log: slog.New(slog.DiscardHandler), Health: health.New(nil)})
	n.config = &subnet.Config{Network: ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.0.0.0/8")}}
	n.backend = backendtest.New(b, vxlan.Type, "{}", backendtest.Env(true, false))
	host := backend.Host{Uplink: backend.Uplink{Name: "eth0", Index: 2, MTU: 1500}}
	p := &passState{n: n, site: newSite(n.config, n.Backends, kernel.Host{}, host.Uplink, nil)}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now := leases
		if i%2 == 0 {
			now = less
		}
		p.plan(subnet.Snapshot{Leases: now}, *leases[0], host)
	}
}
