package fastpath

import (
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
)

// frames is what passes the uplink of a host.
type frames struct{ fd int }

func (h *host) capture(t *testing.T) *frames {
	t.Helper()
	index := h.Index("eth0")
	all := int(wireOrder(unix.ETH_P_ALL))
	f := &frames{-1}
	h.Do(func() {
		var err error
		if f.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all); err != nil {
			t.Error(err)
			return
		}
		_ = unix.SetsockoptInt(f.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		if err := unix.Bind(f.fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: index}); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() { _ = unix.Close(f.fd) })
	return f
}

// each passes what has arrived and is an IPv4 packet in vxlan.
func (f *frames) each(visit func(frame []byte)) {
	buffer := make([]byte, 1<<17)
	for {
		n, err := unix.Read(f.fd, buffer)
		if err != nil {
			return
		}
		if frame := buffer[:n]; n > 104 && frame[23] == 17 && binary.BigEndian.Uint16(frame[36:]) == 8472 && frame[62] == 8 {
			visit(frame)
		}
	}
}

// headers is what of a frame is the same for all packets of a flow and direction:
// outer TOS, fragmentation, time to live, protocol, addresses and ports, the vxlan
// header, the inner Ethernet header, TOS, fragmentation and time to live.
func headers(frame []byte) string {
	return fmt.Sprintf("eth %x tos %x frag %x ttl %x addrs %x ports %x vxlan %x inner %x tos %x frag %x ttl %x",
		frame[:14], frame[15], frame[20:22], frame[22:24], frame[26:34], frame[34:38], frame[42:50],
		frame[50:64], frame[65], frame[70:72], frame[72:74])
}

// sum is the Internet checksum of b.
func sum(b []byte, more uint32) uint16 {
	for ; len(b) > 1; b = b[2:] {
		more += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		more += uint32(b[0]) << 8
	}
	for more > 0xffff {
		more = more&0xffff + more>>16
	}
	return ^uint16(more)
}

func TestTheWireIsThatOfTheKernelsDevice(t *testing.T) {
	for _, offloads := range []bool{true, false} {
		t.Run(fmt.Sprintf("offloads=%t", offloads), func(t *testing.T) {
			hosts := twoHosts(t, overVXLAN)
			if !offloads {
				for _, h := range hosts {
					h.Tool("ethtool", "-K eth0 tx off tso off gso off")
					h.Tool("ethtool", "-K veth0 tx off tso off gso off gro off")
					h.pod.Tool("ethtool", "-K eth0 tx off tso off gso off gro off")
				}
			}
			captured := hosts[1].capture(t)
			for _, h := range hosts {
				h.run(t, Options{})
			}
			client, server := connect(t, hosts[0], hosts[1], ipfam.V4)
			untilFast(t, hosts, client, server)
			stream(t, client, server)
			seen := map[string][2]int{}
			captured.each(func(frame []byte) {
				checkFrame(t, frame, offloads)
				fast := 0
				if binary.BigEndian.Uint16(frame[40:]) == 0 { // the checksum that only the device sets
					fast = 1
				}
				n := seen[headers(frame)]
				n[fast]++
				seen[headers(frame)] = n
			})
			if len(seen) != 2 {
				t.Errorf("the headers of a direction differ: %v", seen)
			}
			for headers, n := range seen {
				if n[0] == 0 || n[1] == 0 {
					t.Errorf("%d packets were those of the device, %d of the programs: %s", n[0], n[1], headers)
				}
			}
		})
	}
}

// checkFrame checks lengths, and checksums if nothing is left to a device.
func checkFrame(t *testing.T, frame []byte, offloads bool) {
	t.Helper()
	length := func(at int) int { return int(binary.BigEndian.Uint16(frame[at:])) }
	if length(16) != len(frame)-14 || length(38) != len(frame)-34 || length(66) != len(frame)-64 {
		t.Fatalf("wrong lengths in % x", frame[:104])
	}
	if sum(frame[14:34], 0) != 0 || sum(frame[64:84], 0) != 0 {
		t.Fatalf("wrong checksum of an IP header in % x", frame[:104])
	}
	if offloads {
		return
	}
	if len(frame) > 1514 {
		t.Fatalf("a frame of %d bytes", len(frame))
	}
	pseudo := uint32(frame[73]) + uint32(len(frame)-84)
	pseudo += uint32(^sum(frame[76:84], 0))
	if sum(frame[84:], pseudo) != 0 {
		t.Fatalf("wrong checksum of TCP in % x", frame[:104])
	}
}

func TestUDPIsFast(t *testing.T) {
	hosts := twoHosts(t, overVXLAN)
	for _, h := range hosts {
		h.run(t, Options{})
	}
	open := func(h *host, to *net.UDPAddr) (c *net.UDPConn) {
		h.pod.Do(func() {
			local := &net.UDPAddr{IP: h.podAddr(ipfam.V4).AsSlice(), Port: 4000}
			var err error
			if c, err = net.DialUDP("udp", local, to); err != nil {
				t.Error(err)
			}
		})
		if c == nil {
			t.FailNow()
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	client := open(hosts[0], &net.UDPAddr{IP: hosts[1].podAddr(ipfam.V4).AsSlice(), Port: 4000})
	server := open(hosts[1], &net.UDPAddr{IP: hosts[0].podAddr(ipfam.V4).AsSlice(), Port: 4000})
	deadline := time.Now().Add(40 * time.Second)
	message := make([]byte, 1200)
	for hosts[0].fastPackets(t, "out") < 10 || hosts[0].fastPackets(t, "in") < 10 ||
		hosts[1].fastPackets(t, "out") < 10 || hosts[1].fastPackets(t, "in") < 10 {
		if time.Now().After(deadline) {
			dump(t, hosts)
			t.Fatal("not fast")
		}
		for _, way := range [][2]*net.UDPConn{{client, server}, {server, client}} {
			if _, err := way[0].Write(message); err != nil {
				t.Fatal(err)
			}
			_ = way[1].SetReadDeadline(deadline)
			if n, err := way[1].Read(message); err != nil || n != len(message) {
				t.Fatal(n, err)
			}
		}
	}
}
