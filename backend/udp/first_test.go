package udp

import (
	"testing"
	"time"

	"flannel/internal/ipfam"
)

// TestTheFirstPacketIsNotLost sends at once when packets are moved: by itself the
// kernel puts a device to use a while after somebody has attached to it, on a host
// where network devices come and go much later.
func TestTheFirstPacketIsNotLost(t *testing.T) {
	ends := newEnds(t)
	out, in := sockets(t, ends[0], ends[1], ipfam.V4)
	ends[1].move(t, all)
	ends[0].move(t, all)
	if _, err := out.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := in.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := in.ReadFrom(make([]byte, 10)); err != nil {
		t.Error(err)
	}
}
