package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
)

// socket carries the datagrams of one family.
type socket struct {
	conn   *net.UDPConn
	family ipfam.Family
	// batch sends and receives many messages at once, of either family.
	batch *ipv4.PacketConn
	// gso is whether one send makes many datagrams, gro whether one receive gets
	// many.
	gso, gro bool
	may      offloads
}

// bufferSize is what the kernel may hold for us while we do something else.
const bufferSize = 8 << 20

// listen opens the socket on this address, which is also the source of what is
// sent.
func listen(addr netip.Addr, port int, zone string, may offloads) (*socket, error) {
	s := &socket{family: ipfam.Of(addr), may: may}
	if addr.IsLinkLocalUnicast() && addr.Is6() {
		addr = addr.WithZone(zone)
	}
	config := net.ListenConfig{Control: s.control}
	network := ipfam.Pair[string]{"udp4", "udp6"}[s.family]
	conn, err := config.ListenPacket(context.Background(), network, netip.AddrPortFrom(addr, uint16(port)).String())
	if err != nil {
		return nil, fmt.Errorf("open UDP port %d: %w", port, err)
	}
	s.conn = conn.(*net.UDPConn)
	s.batch = ipv4.NewPacketConn(conn)
	return s, nil
}

// control sets what the socket needs. A packet that is too long for a path must be
// an error, because its sender has to learn of it.
func (s *socket) control(_, _ string, c syscall.RawConn) error {
	var err error
	failed := c.Control(func(p uintptr) {
		fd := int(p)
		set := func(level, option, value int) error { return unix.SetsockoptInt(fd, level, option, value) }
		if s.family == ipfam.V4 {
			err = errors.Join(set(unix.IPPROTO_IP, unix.IP_RECVTOS, 1),
				set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO))
		} else {
			err = errors.Join(set(unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1),
				set(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO),
				set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
		}
		for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF, unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
			_ = set(unix.SOL_SOCKET, option, bufferSize) // less does as well
		}
		s.gro = s.may.gro && set(unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
		_, noGSO := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		s.gso = s.may.gso && noGSO == nil
	})
	return errors.Join(failed, err)
}

// pathMTU asks the kernel what fits on the way to an address.
func pathMTU(f ipfam.Family, to *net.UDPAddr) (mtu int, err error) {
	conn, err := net.DialUDP("udp", nil, to)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	option := ipfam.Pair[[2]int]{{unix.IPPROTO_IP, unix.IP_MTU}, {unix.IPPROTO_IPV6, unix.IPV6_MTU}}[f]
	failed := raw.Control(func(fd uintptr) { mtu, err = unix.GetsockoptInt(int(fd), option[0], option[1]) })
	return mtu, errors.Join(failed, err)
}
