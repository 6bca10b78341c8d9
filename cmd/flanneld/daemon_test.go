package main

import (
	"log/slog"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAKernelNeedsNeitherIPsecNorNetfilter looks at what is opened at start:
// a kernel without one of these refuses its sockets.
func TestAKernelNeedsNeitherIPsecNorNetfilter(t *testing.T) {
	o, err := parseFlags(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDaemon(o, slog.New(slog.DiscardHandler), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	for family, name := range map[int]string{unix.NETLINK_XFRM: "XFRM", unix.NETLINK_NETFILTER: "NETFILTER"} {
		if d.handle.SupportsNetlinkFamily(family) {
			t.Errorf("a socket of %s is open", name)
		}
	}
}
