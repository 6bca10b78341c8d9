package fastpath

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"flannel/backend/hostgw"
	"flannel/backend/vxlan"
	"flannel/fastpath/conntrack"
	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/internal/testkit/nstest"
)

// run starts the fast path of a host; it ends with the test, or with stop.
func (h *host) run(t testing.TB, o Options) (stop func()) {
	t.Helper()
	o.Bridge, o.Namespace = "cni0", int(h.Namespace)
	o.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	h.fast = New(o)
	h.fast.SetPeers(h.peers)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.fast.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			<-done
		}
	}
	t.Cleanup(stop)
	return stop
}

// fastPackets is how many packets were carried in one direction.
func (h *host) fastPackets(t testing.TB, direction string) uint64 {
	t.Helper()
	counts, err := h.fast.Counts()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if c.Direction == direction && c.Reason == "fast" {
			return c.Packets
		}
	}
	return 0
}

// connect opens a connection from the pod of one host to that of the other.
func connect(t testing.TB, from, to *host, f ipfam.Family) (client, server *net.TCPConn) {
	t.Helper()
	l := to.listen(t, f)
	client = from.dial(t, l.Addr())
	server, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return client, server
}

// echo sends a message there and back.
func echo(t testing.TB, client, server *net.TCPConn) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	_ = client.SetDeadline(deadline)
	_ = server.SetDeadline(deadline)
	message := make([]byte, 100)
	for _, way := range [][2]*net.TCPConn{{client, server}, {server, client}} {
		if _, err := way[0].Write(message); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(way[1], message); err != nil {
			t.Fatal(err)
		}
	}
}

// untilFast exchanges messages until both hosts carry them in both directions.
func untilFast(t testing.TB, hosts [2]*host, client, server *net.TCPConn) {
	t.Helper()
	var before [4]uint64
	read := func() (n [4]uint64) {
		for i, h := range hosts {
			n[2*i], n[2*i+1] = h.fastPackets(t, "out"), h.fastPackets(t, "in")
		}
		return n
	}
	before = read()
	eventually.True(t, "all packets of the connection are fast", func() bool {
		echo(t, client, server)
		for i, n := range read() {
			if n == before[i] {
				return false
			}
		}
		return true
	})
}

func dump(t testing.TB, hosts [2]*host) {
	for _, h := range hosts {
		counts, _ := h.fast.Counts()
		for _, c := range counts {
			if c.Packets > 0 {
				t.Log(h.n, c)
			}
		}
		t.Log("flows", h.fast.Flows(), "invalid", h.invalid(t))
	}
}

// connTuple is the entry of a connection as its client sees it.
func connTuple(c net.Conn) conntrack.Tuple {
	addr := func(a net.Addr) netip.AddrPort {
		p := a.(*net.TCPAddr).AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return conntrack.Tuple{Src: addr(c.LocalAddr()), Dst: addr(c.RemoteAddr()), Protocol: protocolTCP}
}

// entry is what conntrack of a host has of a connection.
func (h *host) entry(t testing.TB, tuple conntrack.Tuple) (conntrack.Entry, error) {
	t.Helper()
	c, err := conntrack.Dial(int(h.Namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.Get(tuple)
}

// The states of TCP connections in conntrack.
const (
	timeWait = 7
	closed   = 8
)

func TestConnectionsEndAsWithoutTheFastPath(t *testing.T) {
	tests := []struct {
		name   string
		hold   time.Duration
		before func(t *testing.T, client, server *net.TCPConn)
	}{
		{"right after the promotion", 0, func(*testing.T, *net.TCPConn, *net.TCPConn) {}},
		{"after much traffic", 0, func(t *testing.T, client, server *net.TCPConn) {
			stream(t, client, server)
			stream(t, server, client)
		}},
		{"after spells in the stack", 300 * time.Millisecond, func(t *testing.T, client, server *net.TCPConn) {
			for end := time.Now().Add(time.Second); time.Now().Before(end); {
				stream(t, client, server)
				stream(t, server, client)
			}
		}},
	}
	for _, tt := range tests {
		for _, reset := range []bool{false, true} {
			for _, byClient := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/reset=%t/by client=%t", tt.name, reset, byClient), func(t *testing.T) {
					hosts := twoHosts(t, overVXLAN)
					for _, h := range hosts {
						h.run(t, Options{Hold: tt.hold})
					}
					client, server := connect(t, hosts[0], hosts[1], ipfam.V4)
					tuple := connTuple(client)
					untilFast(t, hosts, client, server)
					tt.before(t, client, server)
					first, second := client, server
					if !byClient {
						first, second = server, client
					}
					want := uint8(timeWait)
					if reset {
						want = closed
						_ = first.SetLinger(0)
					}
					_ = first.Close()
					_, _ = io.Copy(io.Discard, second)
					_ = second.Close()
					for _, h := range hosts {
						eventually.Says(t, func() (string, bool) {
							e, err := h.entry(t, tuple)
							return fmt.Sprintf("host %d: state %d, want %d (%v)", h.n, e.TCPState, want, err), e.TCPState == want
						})
						if n := h.invalid(t); n != 0 {
							t.Errorf("host %d: conntrack found %d packets invalid", h.n, n)
						}
						eventually.True(t, "the flow is forgotten or closed", func() bool { return h.fast.Flows() <= 1 })
					}
				})
			}
		}
	}
}

// stalls reports whether a message does not arrive for a while.
func stalls(t testing.TB, from, to *net.TCPConn) bool {
	t.Helper()
	_ = from.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := from.Write(make([]byte, 100)); err != nil {
		return true
	}
	_ = to.SetReadDeadline(time.Now().Add(400 * time.Millisecond))
	_, err := io.ReadFull(to, make([]byte, 100))
	return err != nil
}

func TestARuleThatIsAddedCutsWithinTheHold(t *testing.T) {
	const hold = 2 * time.Second
	for name, rule := range map[string]string{
		"for the packets of a pod": "insert rule inet test forward ip saddr 10.5.1.2 counter drop",
		"for what is sent outside": "add rule inet test output ip daddr 192.0.2.2 udp dport 8472 drop",
		"for what comes outside":   "add rule inet test input ip saddr 192.0.2.2 udp dport 8472 drop",
	} {
		t.Run(name, func(t *testing.T) {
			hosts := twoHosts(t, overVXLAN)
			for _, h := range hosts {
				h.run(t, Options{Hold: hold})
			}
			for _, hook := range []string{"input", "output"} {
				hosts[0].Tool("nft", "add chain inet test", hook, "{ type filter hook", hook, "priority 0 ; }")
			}
			client, server := connect(t, hosts[0], hosts[1], ipfam.V4)
			untilFast(t, hosts, client, server)
			hosts[0].Tool("nft", rule)
			added := time.Now()
			cut := func() bool { return stalls(t, client, server) || stalls(t, server, client) }
			eventually.True(t, "the connection is cut", cut)
			if took := time.Since(added); took > 10*hold {
				t.Errorf("cut after %v, want %v", took, hold)
			}
			if !cut() {
				t.Error("the connection goes on")
			}
		})
	}
}

func TestADeletedEntryEndsAFlowAtOnce(t *testing.T) {
	hosts := twoHosts(t, overVXLAN)
	for _, h := range hosts {
		h.run(t, Options{})
	}
	client, server := connect(t, hosts[0], hosts[1], ipfam.V4)
	untilFast(t, hosts, client, server)
	hosts[0].Tool("nft", "insert rule inet test forward ip saddr 10.5.1.2 counter drop")
	c, err := conntrack.Dial(int(hosts[0].Namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Delete(connTuple(client)); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the flow is not permitted any more", func() bool { return hosts[0].fast.Flows() == 0 })
	if !stalls(t, client, server) {
		t.Error("the connection goes on")
	}
}

func TestTheStackTakesOverWhenTheFastPathEnds(t *testing.T) {
	hosts := twoHosts(t, overVXLAN)
	var stops []func()
	for _, h := range hosts {
		stops = append(stops, h.run(t, Options{}))
	}
	client, server := connect(t, hosts[0], hosts[1], ipfam.V4)
	untilFast(t, hosts, client, server)
	for i, h := range hosts {
		stops[i]()
		for _, dev := range []string{"eth0", "flannel.1", "veth0"} {
			if n := h.attached(t, dev); n != 0 {
				t.Errorf("%d programs are still attached to %s", n, dev)
			}
		}
		echo(t, client, server)
	}
	for _, h := range hosts {
		h.run(t, Options{})
	}
	untilFast(t, hosts, client, server)
	for _, h := range hosts {
		if n := h.invalid(t); n != 0 {
			t.Errorf("conntrack found %d packets invalid", n)
		}
	}
}

// attached is how many tcx programs a device has.
func (h *host) attached(t testing.TB, dev string) (n int) {
	t.Helper()
	index := h.Index(dev)
	h.Do(func() {
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			result, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: at})
			if err != nil {
				t.Error(err)
				return
			}
			n += len(result.Programs)
		}
	})
	return n
}

func TestAStreamIsFast(t *testing.T) {
	for name, w := range map[string]wiring{
		"vxlan":                overVXLAN,
		"vxlan, DirectRouting": {vxlan.Type, `{"DirectRouting":true}`},
		"host-gw":              {hostgw.Type, `{}`},
	} {
		for _, f := range ipfam.All() {
			t.Run(fmt.Sprintf("%s/%s", name, f), func(t *testing.T) {
				hosts := twoHosts(t, w)
				for _, h := range hosts {
					h.run(t, Options{})
				}
				client, server := connect(t, hosts[0], hosts[1], f)
				defer func() {
					if t.Failed() {
						dump(t, hosts)
					}
				}()
				untilFast(t, hosts, client, server)
				stream(t, client, server)
				stream(t, server, client)
				before := hosts[0].fastPackets(t, "out")
				stream(t, client, server)
				if n := hosts[0].fastPackets(t, "out") - before; n < 100 {
					t.Errorf("%d packets of a stream were fast", n)
				}
				_ = client.Close()
				if _, err := io.Copy(io.Discard, server); err != nil {
					t.Fatal(err)
				}
				_ = server.Close()
				for _, h := range hosts {
					if n := h.invalid(t); n != 0 {
						t.Errorf("conntrack found %d packets invalid", n)
					}
				}
			})
		}
	}
}

// stream sends far more than a window, so that conntrack would refuse what follows,
// and checks what arrives.
func stream(t testing.TB, from, to *net.TCPConn) {
	t.Helper()
	const size = 32 << 20
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i * i >> 8)
	}
	deadline := time.Now().Add(time.Minute)
	_ = from.SetDeadline(deadline)
	_ = to.SetDeadline(deadline)
	go func() {
		for range size / len(block) {
			_, _ = from.Write(block)
		}
	}()
	got := make([]byte, len(block))
	for range size / len(block) {
		if _, err := io.ReadFull(to, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, block) {
			t.Fatal("other bytes arrive than were sent")
		}
	}
}

func TestAPodThatIsReplacedIsReached(t *testing.T) {
	hosts := twoHosts(t, overVXLAN)
	for _, h := range hosts {
		h.run(t, Options{})
	}
	client, server := connect(t, hosts[0], hosts[1], ipfam.V4)
	untilFast(t, hosts, client, server)
	h := hosts[1]
	h.DelLink("veth0")
	next := nstest.New(t)
	h.addPod(t, "veth0", next)
	// The new pod knows nothing of the connection: it answers with a RST.
	_ = client.SetDeadline(time.Now().Add(20 * time.Second))
	for {
		if _, err := client.Write(make([]byte, 100)); err != nil {
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Error(err)
			}
			return
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Error(err)
			}
			return
		}
		t.Fatal("the new pod does not get the packets")
	}
}

func TestAPodWithAQueueingDisciplineIsLeftOut(t *testing.T) {
	hosts := twoHosts(t, overVXLAN)
	hosts[0].run(t, Options{})
	eventually.True(t, "attached", func() bool { return hosts[0].attached(t, "veth0") == 2 })
	hosts[0].Tool("tc", "qdisc add dev veth0 root tbf rate 1gbit burst 1mb latency 10ms")
	eventually.True(t, "detached", func() bool { return hosts[0].attached(t, "veth0") == 0 })
	hosts[0].Tool("tc", "qdisc del dev veth0 root")
	eventually.True(t, "attached again", func() bool { return hosts[0].attached(t, "veth0") == 2 })
}

func TestAHostWithOtherPoliciesIsLeftOut(t *testing.T) {
	hosts := twoHosts(t, overVXLAN)
	h := hosts[0]
	h.run(t, Options{})
	attached := func(want int) {
		t.Helper()
		eventually.Says(t, func() (string, bool) {
			n := h.attached(t, "eth0") + h.attached(t, "veth0")
			return fmt.Sprintf("%d programs are attached, want %d", n, want), n == want
		})
	}
	attached(4)
	for _, policy := range []string{
		"rule %s fwmark 1 lookup 100",
		"-6 rule %s fwmark 0x10/0x10 lookup 100",
		"xfrm policy %s src 192.0.2.1 dst 192.0.2.2 dir out",
	} {
		h.IP(fmt.Sprintf(policy, "add"))
		attached(0)
		h.IP(fmt.Sprintf(strings.TrimSuffix(policy, " lookup 100"), "del"))
		attached(4)
	}
	events := func(mode string) {
		h.Do(func() { setSysctl(t, "net/netfilter/nf_conntrack_events", mode) })
		h.fast.kick.Send() // a sysctl that is changed is no event
	}
	events("0")
	attached(0)
	events("2")
	attached(4)
}

// away makes the programs believe that the daemon has not run for a while.
func (h *host) away() error {
	h.fast.open.Lock()
	defer h.fast.open.Unlock()
	return h.fast.session.objects.AliveUntil.Set(uint64(1))
}

func TestADaemonThatDoesNotRunCarriesNothing(t *testing.T) {
	hosts := twoHosts(t, overVXLAN)
	for _, h := range hosts {
		h.run(t, Options{})
	}
	client, server := connect(t, hosts[0], hosts[1], ipfam.V4)
	untilFast(t, hosts, client, server)
	away := func() (n uint64) {
		counts, err := hosts[0].fast.Counts()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range counts {
			if c.Reason == "away" {
				n += c.Packets
			}
		}
		return n
	}
	eventually.True(t, "packets take the stack", func() bool {
		if err := hosts[0].away(); err != nil {
			t.Fatal(err)
		}
		echo(t, client, server)
		return away() > 0
	})
	untilFast(t, hosts, client, server)
}

func TestAConnectionThatIsOlderThanTheDaemon(t *testing.T) {
	hosts := twoHosts(t, overVXLAN)
	client, server := connect(t, hosts[0], hosts[1], ipfam.V4)
	echo(t, client, server)
	for _, h := range hosts {
		h.run(t, Options{})
	}
	untilFast(t, hosts, client, server)
	c, err := conntrack.Dial(int(hosts[0].Namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Delete(connTuple(client)); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the end of the entry is noticed", func() bool { return hosts[0].fast.Flows() == 0 })
}

func TestTranslatedFlowsTakeTheStackWhereTheyAreTranslated(t *testing.T) {
	hosts := twoHosts(t, overVXLAN)
	l := hosts[1].listen(t, ipfam.V4)
	hosts[0].Tool("nft", "add table ip nat")
	hosts[0].Tool("nft", "add chain ip nat prerouting { type nat hook prerouting priority -100 ; }")
	hosts[0].Tool("nft", "add rule ip nat prerouting ip daddr 10.96.0.1 tcp dport 80 dnat to", l.Addr().String())
	for _, h := range hosts {
		h.run(t, Options{})
	}
	client := hosts[0].dial(t, &net.TCPAddr{IP: net.IPv4(10, 96, 0, 1), Port: 80})
	server, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	eventually.True(t, "the host of the server carries the connection", func() bool {
		echo(t, client, server)
		return hosts[1].fastPackets(t, "in") > 10 && hosts[1].fastPackets(t, "out") > 10
	})
	stream(t, client, server)
	stream(t, server, client)
	if n := hosts[0].fastPackets(t, "out") + hosts[0].fastPackets(t, "in"); n != 0 {
		t.Errorf("%d packets were fast on the host that translates them", n)
	}
	_ = client.Close()
	if _, err := io.Copy(io.Discard, server); err != nil {
		t.Error(err)
	}
	for _, h := range hosts {
		if n := h.invalid(t); n != 0 {
			t.Errorf("host %d: conntrack found %d packets invalid", h.n, n)
		}
	}
}
