package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/lab"
	"flannel/lab/node"
)

// filterMode is one way in which rules get into the kernel.
type filterMode struct {
	name string
	nft  bool
	// foreign is a rule of others, which decides between the kinds of
	// iptables.
	foreign string
}

var filterModes = []filterMode{
	{name: "iptables-nft", foreign: "iptables-nft -t nat -A PREROUTING -s 203.0.113.1 -j RETURN"},
	{name: "iptables-legacy", foreign: "iptables-legacy -t nat -A PREROUTING -s 203.0.113.1 -j RETURN"},
	{name: "nftables", nft: true},
}

// dualConfig is a network configuration for both families.
func dualConfig(nft bool, more string) string {
	// The range leaves the subnets of made-up peers alone.
	return fmt.Sprintf(`{"Network": "10.244.0.0/16", "SubnetMin": "10.244.100.0", "SubnetMax": "10.244.199.0", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48",
		"EnableNFTables": %t, %s "Backend": {"Type": "vxlan"}}`, nft, more)
}

// masqLab is a lab of two hosts that masquerade, in one mode.
func masqLab(t *testing.T, mode filterMode, flags ...string) *lab.Lab {
	t.Helper()
	l := newLab(t, lab.Options{
		Hosts: 2, Families: lab.Dual, Network: dualConfig(mode.nft, ""), Flags: append([]string{"--ip-masq"}, flags...),
	})
	for _, h := range l.Hosts {
		if mode.foreign != "" {
			onHost(t, h, mode.foreign)
		}
	}
	return l
}

// outsideReachesPods gives the router, which stands for the world outside,
// routes to the pods of a host, so that it can answer them.
func outsideReachesPods(t *testing.T, l *lab.Lab, h *lab.Host) {
	t.Helper()
	for f, s := range ipfam.Prefixes(subnetOf(t, h)) {
		_, err := l.Router.Exec(t.Context(), "ip", "route", "replace", s.String(), "via", h.Addr(f).String())
		lab.Must(t, err)
	}
}

// routerAddr is an address of the router.
func routerAddr(f ipfam.Family) netip.Addr {
	return ipfam.Pair[netip.Addr]{netip.MustParseAddr("172.31.1.1"), netip.MustParseAddr("fd00:31:0:1::1")}[f]
}

// listen opens a TCP port on a node.
func listen(t *testing.T, n *node.Node, at netip.AddrPort) net.Listener {
	t.Helper()
	var l net.Listener
	lab.Must(t, n.Do(func() (err error) {
		l, err = net.Listen("tcp", at.String())
		return err
	}))
	t.Cleanup(func() { l.Close() })
	return l
}

// dial connects from a node; from may be the zero address.
func dial(ctx context.Context, n *node.Node, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	if from.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var conn net.Conn
	err := n.Do(func() (err error) {
		conn, err = d.DialContext(ctx, "tcp", to.String())
		return err
	})
	return conn, err
}

// connection is a TCP connection from one node to another.
type connection struct {
	from   *node.Node
	source netip.Addr // to send from; may be the zero address
	to     *node.Node
	addr   netip.Addr
	port   uint16
}

// open opens the connection and returns both its ends.
func (c connection) open(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l := listen(t, c.to, netip.AddrPortFrom(c.addr, c.port))
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	client, err := dial(t.Context(), c.from, c.source, netip.AddrPortFrom(c.addr, port))
	if err != nil {
		t.Fatalf("%s to %s: %v", c.from.Name, c.addr, err)
	}
	t.Cleanup(func() { client.Close() })
	server, err = l.Accept()
	lab.Must(t, err)
	t.Cleanup(func() { server.Close() })
	l.Close()
	return client, server
}

// seen returns the source address that the other end sees.
func (c connection) seen(t *testing.T) netip.Addr {
	t.Helper()
	client, server := c.open(t)
	seen := netip.MustParseAddrPort(server.RemoteAddr().String()).Addr().Unmap()
	client.Close()
	server.Close()
	return seen
}

// exchange sends a line in both directions.
func exchange(client, server net.Conn) error {
	deadline := time.Now().Add(10 * time.Second)
	for _, ends := range [][2]net.Conn{{client, server}, {server, client}} {
		ends[0].SetDeadline(deadline)
		ends[1].SetDeadline(deadline)
		if _, err := ends[0].Write([]byte("hello")); err != nil {
			return err
		}
		if _, err := ends[1].Read(make([]byte, 5)); err != nil {
			return err
		}
	}
	return nil
}

// multicastSeen sends a packet to a group out of a host's uplink and returns
// the source address that the router sees.
func multicastSeen(t *testing.T, l *lab.Lab, h *lab.Host, source netip.Addr, group netip.Addr) netip.Addr {
	t.Helper()
	f := ipfam.Of(group)
	network := ipfam.Pair[string]{"udp4", "udp6"}[f]
	var in, out *net.UDPConn
	lab.Must(t, l.Router.Do(func() error {
		dev, err := net.InterfaceByName("link1")
		if err != nil {
			return err
		}
		in, err = net.ListenMulticastUDP(network, dev, &net.UDPAddr{IP: group.AsSlice()})
		return err
	}))
	defer in.Close()
	lab.Must(t, h.Do(func() error {
		dev, err := net.InterfaceByName(lab.Uplink)
		if err != nil {
			return err
		}
		d := net.Dialer{
			LocalAddr: &net.UDPAddr{IP: source.AsSlice()},
			Control:   func(_, _ string, raw syscall.RawConn) error { return sendMulticastBy(raw, f, dev.Index) },
		}
		to := netip.AddrPortFrom(group, netip.MustParseAddrPort(in.LocalAddr().String()).Port())
		conn, err := d.Dial(network, to.String())
		if err == nil {
			out = conn.(*net.UDPConn)
		}
		return err
	}))
	defer out.Close()
	in.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := out.Write([]byte("hello"))
	lab.Must(t, err)
	_, from, err := in.ReadFromUDPAddrPort(make([]byte, 16))
	lab.Must(t, err)
	return from.Addr().Unmap().WithZone("")
}

func sendMulticastBy(raw syscall.RawConn, f ipfam.Family, index int) error {
	var opt error
	err := raw.Control(func(fd uintptr) {
		if f == ipfam.V4 {
			opt = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(index)})
			return
		}
		opt = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, index)
	})
	if err != nil {
		return err
	}
	return opt
}

// ruleText is what a host holds of rules, ours and those of others, without
// counters.
func ruleText(t *testing.T, h *lab.Host) string {
	t.Helper()
	var b strings.Builder
	for _, command := range []string{
		"nft -s list ruleset", "iptables-legacy -t nat -S", "iptables-legacy -S", "ip6tables-legacy -t nat -S", "ip6tables-legacy -S",
	} {
		b.WriteString(onHost(t, h, command))
	}
	return b.String()
}

// sortedByTable sorts lines by what is in front of the rule, and leaves the
// rules of one chain in their order.
func sortedByTable(lines []string) string {
	slices.SortStableFunc(lines, func(a, b string) int { return strings.Compare(chainOf(a), chainOf(b)) })
	return strings.Join(lines, "\n")
}

// chainOf is the beginning of a line up to the rule.
func chainOf(line string) string {
	words := strings.Fields(line)
	return strings.Join(words[:min(3, len(words))], " ")
}

// sortedOwn picks our rules out of a ruleset.
func sortedOwn(ruleset string) string {
	var lines []string
	table := ""
	for line := range strings.Lines(ruleset) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "table ") || strings.HasPrefix(line, "chain ") {
			table = line
		}
		if strings.Contains(line, "flanneld ") || strings.Contains(line, "10.244.") || strings.Contains(line, "FLANNEL-") || strings.Contains(line, "10:244:") {
			lines = append(lines, table+" "+line)
		}
	}
	return sortedByTable(lines)
}
