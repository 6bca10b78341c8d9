package rtnl

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestAKernelNeedsNeitherIPsecNorNetfilter looks at what a handle opens: a
// kernel without one of these refuses its sockets.
func TestAKernelNeedsNeitherIPsecNorNetfilter(t *testing.T) {
	handle, err := NewHandle(0)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	for family, name := range map[int]string{unix.NETLINK_XFRM: "XFRM", unix.NETLINK_NETFILTER: "NETFILTER"} {
		if handle.SupportsNetlinkFamily(family) {
			t.Errorf("a socket of %s is open", name)
		}
	}
}
