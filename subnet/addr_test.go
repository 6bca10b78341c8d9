package subnet_test

import (
	"math"
	"net/netip"
	"testing"

	"flannel/subnet"
)

func TestSubnetsAreCounted(t *testing.T) {
	for _, tt := range []struct {
		from   string
		n      uint64
		length int
		to     string
	}{
		{"10.5.0.0", 3, 24, "10.5.3.0"},
		{"10.5.0.0", 1 << 16, 24, "11.5.0.0"},
		{"10.5.0.0", 5, 32, "10.5.0.5"},
		{"fd00::", 5, 128, "fd00::5"},
		{"fd00::ffff:ffff:ffff:ffff", 1, 128, "fd00:0:0:1::"},
		{"fd00::", math.MaxUint64, 128, "fd00::ffff:ffff:ffff:ffff"},
		{"fd00::", 0x12345, 64, "fd00:0:1:2345::"},
		{"fd00::", 0x12345, 60, "fd00:0:12:3450::"},
		{"fd00::", 3, 66, "fd00::c000:0:0:0"},
		{"fd00::", 0x10001, 80, "fd00:0:0:1:1::"},
	} {
		from, to := netip.MustParseAddr(tt.from), netip.MustParseAddr(tt.to)
		if got := subnet.Add(from, tt.n, tt.length); got != to {
			t.Errorf("%d of /%d after %s: got %s, want %s", tt.n, tt.length, from, got, to)
		}
		if got := subnet.Distance(from, to, tt.length); got != tt.n {
			t.Errorf("from %s to %s: got %d of /%d, want %d", from, to, got, tt.length, tt.n)
		}
	}
	if got := subnet.Add(netip.MustParseAddr("255.255.255.0"), 2, 24).String(); got != "0.0.1.0" {
		t.Errorf("at the end of the address space: %s", got)
	}
	if got := subnet.Distance(netip.IPv6Unspecified(), netip.MustParseAddr("fd00::"), 120); got != math.MaxUint64 {
		t.Errorf("more than fit: %d", got)
	}
	for prefix, want := range map[string]string{
		"10.5.3.0/24": "10.5.3.255", "0.0.0.0/0": "255.255.255.255", "fd00::/62": "fd00::3:ffff:ffff:ffff:ffff", "fd00::1/128": "fd00::1",
	} {
		if got := subnet.Last(netip.MustParsePrefix(prefix)).String(); got != want {
			t.Errorf("the last address of %s: got %s, want %s", prefix, got, want)
		}
	}
}
