package warm

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/statedir"
	"flannel/subnet"
)

// BenchmarkPeers writes and reads the leases of 5,000 nodes.
func BenchmarkPeers(b *testing.B) {
	dir := statedir.Open(slog.New(slog.DiscardHandler), b.TempDir(), "", "node")
	m := New(identified{identity: "one"}, Options{Log: slog.New(slog.DiscardHandler), Dir: dir})
	for i := range 5000 {
		l := subnet.Lease{Name: fmt.Sprintf("10.%d.%d.0-24", i/256, i%256), Attrs: published(byte(i))}
		l.Subnet[ipfam.V4] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i / 256), byte(i), 0}), 24)
		m.leases = append(m.leases, &l)
	}
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := m.savePeers(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if n := len(m.loadPeers(&state{Identity: "one"})); n != 5001 {
				b.Fatal(n)
			}
		}
	})
}
