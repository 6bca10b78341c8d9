package udp

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"flannel/internal/ipfam"
)

// TestTheFirstPacketIsNotLost sends at once when packets are moved: by itself the
// kernel puts a device to use a while after somebody has attached to it, on a host
// where network devices come and go much later.
func TestTheFirstPacketIsNotLost(t *testing.T) {
	ends := newEnds(t)
	var in net.PacketConn
	var out net.Conn
	var err error
	ends[1].Do(func() { in, err = net.ListenPacket("udp", netip.AddrPortFrom(ends[1].addr(ipfam.V4), 0).String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	ends[0].Do(func() { out, err = net.Dial("udp", in.LocalAddr().String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
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
