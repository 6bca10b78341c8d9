package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

// The port and the subnets of a stand-in for flannel's udp backend.
const udpPort = 8285

var standInSubnet = ipfam.Pair[string]{"10.244.250.0/24", "fd00:10:244:fffa::/64"}

// standIn speaks flannel's wire format on a host without a daemon: each
// datagram is an IP packet.
type standIn struct {
	conn *net.UDPConn
	peer netip.AddrPort
}

// newStandIn publishes a record as flannel does, without a backend type.
func newStandIn(t *testing.T, l *lab.Lab, h, peer *lab.Host, f ipfam.Family) *standIn {
	t.Helper()
	addr := netip.AddrPortFrom(h.Addr(f), udpPort)
	var conn *net.UDPConn
	lab.Must(t, h.Do(func() (err error) {
		if conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr)); err != nil {
			return err
		}
		option := ipfam.Pair[[2]int]{{unix.IPPROTO_IP, unix.IP_RECVTOS}, {unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS}}[f]
		return setOption(conn, option[0], option[1], 1)
	}))
	t.Cleanup(func() { conn.Close() })
	publish(t, l, h, f, "")
	eventually.Says(t, func() (string, bool) {
		text := status(t, peer)
		return text, strings.Contains(text, standInSubnet[f])
	})
	return &standIn{conn, netip.AddrPortFrom(peer.Addr(f), udpPort)}
}

// publish writes the record of the stand-in; more is added to it.
func publish(t *testing.T, l *lab.Lab, h *lab.Host, f ipfam.Family, more string) {
	t.Helper()
	key := strings.ReplaceAll(standInSubnet[ipfam.V4], "/", "-")
	v6 := "null"
	if f == ipfam.V6 {
		key += "&" + strings.ReplaceAll(standInSubnet[ipfam.V6], "/", "-")
		v6 = `"` + h.Addr(ipfam.V6).String() + `"`
	}
	record := fmt.Sprintf(`{"PublicIP":"%s","PublicIPv6":%s%s}`, h.Addr(ipfam.V4), v6, more)
	lab.Must(t, l.Etcd.Put(t.Context(), lab.DefaultPrefix+"/subnets/"+key, record))
}

func setOption(c syscall.Conn, level, option, value int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var opt error
	return errors.Join(raw.Control(func(fd uintptr) { opt = unix.SetsockoptInt(int(fd), level, option, value) }), opt)
}

// receive sends payload from c until a UDP packet arrives, since the first one
// of a pod can get lost, and returns the packet and the TOS of its datagram.
func (s *standIn) receive(t *testing.T, c *net.UDPConn, payload string) ([]byte, byte) {
	t.Helper()
	b, oob := make([]byte, 2000), make([]byte, 100)
	for range 10 {
		_, err := c.Write([]byte(payload))
		lab.Must(t, err)
		lab.Must(t, s.conn.SetReadDeadline(time.Now().Add(waitLimit/10)))
		n, nn, _, _, err := s.conn.ReadMsgUDPAddrPort(b, oob)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		lab.Must(t, err)
		messages, err := unix.ParseSocketControlMessage(oob[:nn])
		lab.Must(t, err)
		if b[0]>>4 == 4 && b[9] == unix.IPPROTO_UDP || b[0]>>4 == 6 && b[6] == unix.IPPROTO_UDP {
			return bytes.Clone(b[:n]), messages[0].Data[0]
		}
	}
	t.Fatal("no packet arrived")
	return nil, 0
}

func (s *standIn) send(t *testing.T, p []byte, tos byte) {
	t.Helper()
	option := ipfam.Pair[[2]int]{{unix.IPPROTO_IP, unix.IP_TOS}, {unix.IPPROTO_IPV6, unix.IPV6_TCLASS}}[ipfam.Of(s.peer.Addr())]
	lab.Must(t, setOption(s.conn, option[0], option[1], int(tos)))
	_, err := s.conn.WriteToUDPAddrPort(p, s.peer)
	lab.Must(t, err)
}

// answer turns a packet around: addresses and ports change places, which no
// checksum minds.
func answer(p []byte) []byte {
	p = bytes.Clone(p)
	from, n, header := 12, 4, 20
	if p[0]>>4 == 6 {
		from, n, header = 8, 16, 40
	}
	src := bytes.Clone(p[from : from+n])
	copy(p[from:], p[from+n:from+2*n])
	copy(p[from+n:], src)
	port := bytes.Clone(p[header : header+2])
	copy(p[header:], p[header+2:header+4])
	copy(p[header+2:], port)
	return p
}

// dialFrom opens a connected UDP socket in a pod that hears ICMP errors.
func dialFrom(t *testing.T, p *lab.Pod, to netip.AddrPort, options ...[3]int) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	lab.Must(t, p.Do(func() (err error) {
		conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	hear := ipfam.Pair[[3]int]{{unix.IPPROTO_IP, unix.IP_RECVERR, 1}, {unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1}}
	for _, o := range append(options, hear[ipfam.Of(to.Addr())]) {
		lab.Must(t, setOption(conn, o[0], o[1], o[2]))
	}
	lab.Must(t, conn.SetReadDeadline(time.Now().Add(waitLimit)))
	return conn
}

func TestUDPSpeaksFlannelsFormat(t *testing.T) {
	for _, f := range ipfam.All() {
		t.Run(f.String(), func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual, Backend: udpBackend})
			h := l.Hosts[0]
			lab.Must(t, h.StartFlanneld())
			ready(t, h)
			pod, err := h.AddPod("pod1")
			lab.Must(t, err)
			far := newStandIn(t, l, l.Hosts[1], h, f)
			dst := netip.MustParsePrefix(standInSubnet[f]).Addr().Next()
			tos := ipfam.Pair[[3]int]{{unix.IPPROTO_IP, unix.IP_TOS, 0xb8 | 2}, {unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 0xb8 | 2}}[f]
			conn := dialFrom(t, pod, netip.AddrPortFrom(dst, 9), tos)
			p, outer := far.receive(t, conn, "to flannel")
			if !bytes.HasSuffix(p, []byte("to flannel")) {
				t.Fatalf("the datagram is no packet: %x", p)
			}
			// One hop less by the host's kernel, one by the daemon.
			if ttl := p[ipfam.Pair[int]{8, 7}[f]]; ttl != 62 {
				t.Errorf("TTL %d, want 62", ttl)
			}
			if outer != 0xb8 {
				t.Errorf("outer TOS %#x: want the DSCP, and no ECN towards flannel", outer)
			}
			// A congestion mark outside reaches the pod inside.
			hear := ipfam.Pair[[3]int]{{unix.IPPROTO_IP, unix.IP_RECVTOS, 1}, {unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1}}[f]
			lab.Must(t, setOption(conn, hear[0], hear[1], hear[2]))
			far.send(t, answer(p), 3)
			b, oob := make([]byte, 100), make([]byte, 100)
			n, nn, _, _, err := conn.ReadMsgUDPAddrPort(b, oob)
			lab.Must(t, err)
			messages, err := unix.ParseSocketControlMessage(oob[:nn])
			lab.Must(t, err)
			if string(b[:n]) != "to flannel" || messages[0].Data[0] != 0xb8|3 {
				t.Errorf("got %q with TOS %#x", b[:n], messages[0].Data[0])
			}
			// A node that names its backend carries congestion marks over.
			publish(t, l, l.Hosts[1], f, `,"BackendType":"udp"`)
			eventually.Says(t, func() (string, bool) {
				_, outer := far.receive(t, conn, "to our own")
				return fmt.Sprintf("outer TOS %#x", outer), outer == 0xb8|2
			})
		})
	}
}

func TestUDPTellsSendersWhatIsWrong(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual, Backend: udpBackend})
	up(t, l)
	from, to := l.Hosts[0].Pods()[0], l.Hosts[1].Pods()[0]
	for f, unleased := range (ipfam.Pair[string]{"10.244.251.1", "fd00:10:244:fffb::1"}).Each() {
		conn := dialFrom(t, from, netip.AddrPortFrom(netip.MustParseAddr(unleased), 9))
		expectErrno(t, f, conn, []byte("x"), unix.ENETUNREACH)
		for hops := 2; hops <= 3; hops++ {
			ttl := ipfam.Pair[[3]int]{{unix.IPPROTO_IP, unix.IP_TTL, hops}, {unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hops}}[f]
			conn := dialFrom(t, from, netip.AddrPortFrom(to.Addr(f), 9), ttl)
			expectErrno(t, f, conn, []byte("x"), unix.EHOSTUNREACH)
		}
	}
}

// expectErrno sends and waits for the error that an ICMP message becomes.
func expectErrno(t *testing.T, f ipfam.Family, c *net.UDPConn, payload []byte, want unix.Errno) {
	t.Helper()
	if _, err := c.Write(payload); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 100)); !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", f, err, want)
	}
}

func TestUDPPathMTUDiscovery(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual, Backend: udpBackend})
	up(t, l)
	h := l.Hosts[0]
	from, to := h.Pods()[0], l.Hosts[1].Pods()[0]
	for f := range (ipfam.Pair[int]{}).Each() {
		// The way to the other host takes less than the uplink.
		onHost(t, h, fmt.Sprintf("ip route add %s dev eth0 mtu 1400", ipfam.Host(l.Hosts[1].Addr(f))))
		want := 1400 - ipfam.Pair[int]{28, 48}[f]
		discover := ipfam.Pair[[3]int]{
			{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO}, {unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO},
		}[f]
		conn := dialFrom(t, from, netip.AddrPortFrom(to.Addr(f), 9), discover)
		expectErrno(t, f, conn, make([]byte, 1390), unix.EMSGSIZE)
		if got := pathMTU(t, conn, f); got != want {
			t.Errorf("%s: the pod knows an MTU of %d, want %d", f, got, want)
		}
		transfer(t, from, to, f, 8<<20)
	}
	// What may be taken apart arrives.
	sink := listenIn(t, to, 9)
	apart := [3]int{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT}
	conn := dialFrom(t, from, netip.AddrPortFrom(to.Addr(ipfam.V4), 9), apart)
	_, err := conn.Write(bytes.Repeat([]byte("x"), 1444))
	lab.Must(t, err)
	b := make([]byte, 2000)
	if n, _, err := sink.ReadFromUDPAddrPort(b); err != nil || n != 1444 {
		t.Errorf("%d bytes arrived: %v", n, err)
	}
}

func pathMTU(t *testing.T, c *net.UDPConn, f ipfam.Family) (mtu int) {
	t.Helper()
	raw, err := c.SyscallConn()
	lab.Must(t, err)
	lab.Must(t, raw.Control(func(fd uintptr) {
		if f == ipfam.V4 {
			mtu, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU)
			return
		}
		mtu, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU)
	}))
	return mtu
}

func listenIn(t *testing.T, p *lab.Pod, port uint16) *net.UDPConn {
	t.Helper()
	var sink *net.UDPConn
	lab.Must(t, p.Do(func() (err error) {
		sink, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.Addr(ipfam.V4), port)))
		return err
	}))
	t.Cleanup(func() { sink.Close() })
	lab.Must(t, sink.SetReadDeadline(time.Now().Add(waitLimit)))
	return sink
}

// transfer sends bytes over TCP from pod to pod and compares what arrives.
func transfer(t *testing.T, from, to *lab.Pod, f ipfam.Family, n int) {
	t.Helper()
	var listener net.Listener
	lab.Must(t, to.Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(to.Addr(f), 80).String())
		return err
	}))
	defer listener.Close()
	sent := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		binary.BigEndian.PutUint64(sent[i:], uint64(i)*0x9e3779b97f4a7c15)
	}
	failed := make(chan error, 1)
	go func() {
		c, err := from.Dial(t.Context(), "tcp", listener.Addr().String())
		if err == nil {
			c.SetDeadline(time.Now().Add(waitLimit))
			_, err = c.Write(sent)
			c.Close()
		}
		failed <- err
	}()
	c, err := listener.Accept()
	lab.Must(t, err)
	defer c.Close()
	lab.Must(t, c.SetDeadline(time.Now().Add(waitLimit)))
	got, err := io.ReadAll(c)
	lab.Must(t, errors.Join(err, <-failed))
	if !bytes.Equal(got, sent) {
		t.Errorf("%s: %d bytes arrived, and not those that were sent", f, len(got))
	}
}

func TestUDPSources(t *testing.T) {
	tests := map[string]struct {
		options       string
		known, inside bool // may a stranger send, may a peer send with another's address
	}{
		"as flannel": {`{"Type": "udp"}`, true, true},
		"known":      {`{"Type": "udp", "KnownSourcesOnly": true}`, false, true},
		"strict":     {`{"Type": "udp", "StrictSources": true}`, false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 3, Backend: tt.options})
			h := l.Hosts[0]
			lab.Must(t, h.StartFlanneld())
			ready(t, h)
			pod, err := h.AddPod("pod1")
			lab.Must(t, err)
			far := newStandIn(t, l, l.Hosts[1], h, ipfam.V4)
			dst := netip.AddrPortFrom(netip.MustParseAddr("10.244.250.5"), 9)
			conn := dialFrom(t, pod, dst)
			p, _ := far.receive(t, conn, "x")
			reply := answer(p)

			stranger := &standIn{peer: far.peer}
			lab.Must(t, l.Hosts[2].Do(func() (err error) {
				stranger.conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: udpPort})
				return err
			}))
			defer stranger.conn.Close()
			stranger.send(t, reply, 0)
			far.send(t, last(reply), 0)
			if got := beforeLast(t, conn); (got == 1) != tt.known || got > 1 {
				t.Errorf("%d packets of a stranger arrived, one should: %t", got, tt.known)
			}
			// A peer sends with a source of somebody else's subnet.
			elsewhere := dialFrom(t, pod, netip.AddrPortFrom(netip.MustParseAddr("10.244.249.5"), 9))
			port := uint16(elsewhere.LocalAddr().(*net.UDPAddr).Port)
			far.send(t, redirect(reply, 249, port), 0)
			if tt.inside {
				_, err := elsewhere.Read(make([]byte, 100))
				lab.Must(t, err)
			}
			noted := map[string]int{"unknown-source": 1, "wrong-source": 0}
			if !tt.inside {
				noted["wrong-source"] = 1
			}
			for why, n := range noted {
				eventually.Says(t, func() (string, bool) {
					_, numbers, err := h.Flanneld().Get(t.Context(), "/metrics")
					return why + "\n" + numbers, err == nil && strings.Contains(numbers, fmt.Sprintf("flannel_packets_noted_total{why=%q} %d\n", why, n))
				})
			}
			said := strings.Count(h.Log(), "packets from an address that no lease names")
			if said != 1 {
				t.Errorf("said %d times", said)
			}
			if text := h.Log(); !strings.Contains(text, "src="+l.Hosts[2].Addr(ipfam.V4).String()) {
				t.Errorf("the stranger is not named:\n%s", text)
			}
		})
	}
}

// last gives an IPv4 packet another payload, by which it is known. It has no
// transport checksum then.
func last(p []byte) []byte {
	p = bytes.Clone(p)
	p[len(p)-1] = lastByte
	clear(p[26:28])
	return p
}

const lastByte = 'z'

// beforeLast returns how many packets come before the last one.
func beforeLast(t *testing.T, c *net.UDPConn) int {
	t.Helper()
	b := make([]byte, 100)
	for got := 0; ; got++ {
		n, err := c.Read(b)
		lab.Must(t, err)
		if b[n-1] == lastByte {
			return got
		}
	}
}

// redirect gives an IPv4 packet another third byte of its source, and another
// destination port. It has no transport checksum then.
func redirect(p []byte, third byte, port uint16) []byte {
	p = bytes.Clone(p)
	p[14] = third
	binary.BigEndian.PutUint16(p[22:], port)
	clear(p[26:28])
	clear(p[10:12])
	sum := 0
	for i := 0; i < 20; i += 2 {
		sum += int(binary.BigEndian.Uint16(p[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum+sum>>16))
	return p
}
