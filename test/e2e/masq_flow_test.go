package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
	"flannel/lab/node"
	"flannel/subnet/env"
)

// flow is a stream of datagrams from a pod to the router. Each goes to another
// port, so each meets the rules as the first packet of a connection.
type flow struct {
	in   net.PacketConn
	sent int
	seen map[netip.Addr]int
	stop func() // ends it, and waits for what is on its way
}

// startFlow begins a flow; the caller ends it.
func startFlow(t *testing.T, from *node.Node, l *lab.Lab, f ipfam.Family) *flow {
	t.Helper()
	w := &flow{seen: map[netip.Addr]int{}}
	to := routerAddr(f)
	network := ipfam.Pair[string]{"ip4:udp", "ip6:udp"}[f]
	lab.Must(t, l.Router.Do(func() (err error) {
		w.in, err = net.ListenPacket(network, to.String())
		return err
	}))
	var out *net.UDPConn
	lab.Must(t, from.Do(func() (err error) {
		out, err = net.ListenUDP("udp", &net.UDPAddr{})
		return err
	}))
	done := make(chan struct{})
	var sender, reader sync.WaitGroup
	sender.Go(func() { w.send(out, to, done) })
	reader.Go(w.count)
	w.stop = sync.OnceFunc(func() {
		close(done)
		sender.Wait()
		_, _ = out.WriteToUDPAddrPort([]byte(lastDatagram), netip.AddrPortFrom(to, 9))
		w.in.SetReadDeadline(time.Now().Add(waitLimit))
		reader.Wait()
		out.Close()
		w.in.Close()
	})
	t.Cleanup(w.stop)
	return w
}

// lastDatagram is the payload of what is sent behind a flow.
const lastDatagram = "the end"

func (w *flow) send(out *net.UDPConn, to netip.Addr, done chan struct{}) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	const first, last = 1024, 65535
	for port := uint16(first); ; port++ {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		if port < first {
			port = first
		}
		if _, err := out.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(to, port)); err == nil {
			w.sent++
		}
	}
}

// count notes the sources of what arrives, up to the last datagram.
func (w *flow) count() {
	b := make([]byte, 100)
	for {
		n, from, err := w.in.ReadFrom(b)
		if err != nil || strings.HasSuffix(string(b[:n]), lastDatagram) {
			return
		}
		a, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
		w.seen[a.Unmap()]++
	}
}

// complete looks at a flow that has ended: every datagram has arrived, with the
// address want.
func (w *flow) complete(t *testing.T, during string, want netip.Addr) {
	t.Helper()
	t.Logf("%s: %d datagrams", during, w.sent)
	if w.sent == 0 || len(w.seen) != 1 || w.seen[want] != w.sent {
		t.Errorf("%s: of %d datagrams arrived %v, want all from %s", during, w.sent, w.seen, want)
	}
}

// whileFlowing lets both families flow from a host's pod while something
// happens.
func whileFlowing(t *testing.T, l *lab.Lab, h *lab.Host, name string, do func()) {
	t.Helper()
	var flows ipfam.Pair[*flow]
	for _, f := range ipfam.All() {
		flows[f] = startFlow(t, h.Pods()[0].Node, l, f)
	}
	do()
	var ending sync.WaitGroup
	for _, w := range flows {
		ending.Go(w.stop)
	}
	ending.Wait()
	for _, f := range ipfam.All() {
		flows[f].complete(t, name+" over "+f.String(), h.Addr(f))
	}
}

// standInEnv is what a flannel that ran on the host has left in subnet.env.
func standInEnv() env.Env {
	p := netip.MustParsePrefix
	return env.Env{
		Network: ipfam.Pair[[]netip.Prefix]{{p("10.244.0.0/16")}, {p("fd00:10:244::/48")}},
		Subnet:  ipfam.Pair[netip.Prefix]{p("10.244.120.1/24"), p("fd00:10:244:120::1/64")},
		MTU:     1430, IPMasq: true,
	}
}

// flannelsRules are the commands that write what flannel writes in this mode.
func flannelsRules(mode filterMode, f ipfam.Family, e env.Env) []string {
	network, subnet := e.Network[f][0].String(), e.Subnet[f].Masked().String()
	multicast := ipfam.Pair[string]{"224.0.0.0/4", "ff00::/8"}[f]
	fill := strings.NewReplacer("NETWORK", network, "SUBNET", subnet, "GROUPS", multicast,
		"IPTABLES", ipfam.Pair[string]{"ip", "ip6"}[f]+"tables"+strings.TrimPrefix(mode.name, "iptables"),
		"TABLE", ipfam.Pair[string]{"ip flannel-ipv4", "ip6 flannel-ipv6"}[f], "IP", ipfam.Pair[string]{"ip", "ip6"}[f])
	text := `IPTABLES -t nat -N FLANNEL-POSTRTG
IPTABLES -t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
IPTABLES -t nat -A FLANNEL-POSTRTG -s SUBNET -d NETWORK -m comment --comment "flanneld masq" -j RETURN
IPTABLES -t nat -A FLANNEL-POSTRTG -s NETWORK -d SUBNET -m comment --comment "flanneld masq" -j RETURN
IPTABLES -t nat -A FLANNEL-POSTRTG ! -s NETWORK -d SUBNET -m comment --comment "flanneld masq" -j RETURN
IPTABLES -t nat -A FLANNEL-POSTRTG -s NETWORK ! -d GROUPS -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
IPTABLES -t nat -A FLANNEL-POSTRTG ! -s NETWORK -d NETWORK -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
IPTABLES -t nat -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
IPTABLES -N FLANNEL-FWD
IPTABLES -A FLANNEL-FWD -s NETWORK -m comment --comment "flanneld forward" -j ACCEPT
IPTABLES -A FLANNEL-FWD -d NETWORK -m comment --comment "flanneld forward" -j ACCEPT
IPTABLES -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD`
	if mode.nft {
		text = `nft add table TABLE
nft 'add chain TABLE postrtg { type nat hook postrouting priority 100 ; }'
nft add rule TABLE postrtg meta mark 0x4000 return
nft add rule TABLE postrtg IP saddr SUBNET IP daddr NETWORK return
nft add rule TABLE postrtg IP saddr NETWORK IP daddr SUBNET return
nft add rule TABLE postrtg IP saddr != SUBNET IP daddr NETWORK return
nft add rule TABLE postrtg IP saddr NETWORK IP daddr != GROUPS masquerade fully-random
nft add rule TABLE postrtg IP saddr != NETWORK IP daddr NETWORK masquerade fully-random
nft 'add chain TABLE forward { type filter hook forward priority 0 ; }'
nft add rule TABLE forward IP saddr NETWORK accept
nft add rule TABLE forward IP daddr NETWORK accept`
	}
	return strings.Split(fill.Replace(text), "\n")
}

// afterFlannel makes a host look as flannel has left it, with a pod.
func afterFlannel(t *testing.T, h *lab.Host, mode filterMode) {
	t.Helper()
	e := standInEnv()
	lab.Must(t, h.Do(func() error {
		_, err := env.Write(lab.DefaultSubnetFile, e)
		return err
	}))
	_, err := h.AddPod("pod1")
	lab.Must(t, err)
	for _, f := range ipfam.All() {
		for _, command := range flannelsRules(mode, f, e) {
			_, err := h.Exec(t.Context(), "sh", "-c", command)
			lab.Must(t, err)
		}
		if mode.nft {
			continue
		}
		// As Docker does: every packet needs a rule that accepts it.
		_, err := h.Exec(t.Context(), "sh", "-c", strings.Fields(flannelsRules(mode, f, e)[0])[0]+" -P FORWARD DROP")
		lab.Must(t, err)
	}
}

// TestThePacketFilterIsNeverWithoutRules sends first packets of connections
// from a pod all the time. None keeps the pod's address, and none is dropped
// although the host drops what our rules do not accept.
func TestThePacketFilterIsNeverWithoutRules(t *testing.T) {
	for _, mode := range filterModes {
		t.Run(mode.name, func(t *testing.T) {
			l := masqLab(t, mode, "--iptables-resync=1")
			lab.Must(t, l.Etcd.Put(t.Context(), lab.DefaultPrefix+"/config", dualConfig(mode.nft, `"MasqueradeExclude": ["nodes"],`)))
			h := l.Hosts[0]
			afterFlannel(t, h, mode)
			outsideReachesPods(t, l, h)
			whileFlowing(t, l, h, "upgrade", func() {
				lab.Must(t, h.StartFlanneld())
				ready(t, h)
			})
			if got := subnetOf(t, h); got != standInEnv().Masked() {
				t.Fatalf("the subnet is %v, so the test is pointless", got)
			}
			whileFlowing(t, l, h, "rules rewritten", func() { rewriteRules(t, l, h) })
			whileFlowing(t, l, h, "restart", func() {
				lab.Must(t, h.Kill())
				lab.Must(t, h.StartFlanneld())
				ready(t, h)
			})
		})
	}
}

// rewriteRules lets nodes come and go, each of which is a rule in front of the
// one that masquerades, or an element that such a rule looks up.
func rewriteRules(t *testing.T, l *lab.Lab, h *lab.Host) {
	t.Helper()
	shows := func(n int, want bool) {
		t.Helper()
		eventually.Says(t, func() (string, bool) {
			now := ruleText(t, h)
			return now, strings.Contains(now, fmt.Sprintf("172.31.1.%d", n)) == want &&
				strings.Contains(now, fmt.Sprintf("fd00:31:0:1::%d", n)) == want
		})
	}
	for n := 90; n < 93; n++ {
		key := fmt.Sprintf("%s/subnets/10.244.%d.0-24&fd00:10:244:%d::-64", lab.DefaultPrefix, n, n)
		value := fmt.Sprintf(`{"PublicIP":"172.31.1.%d","PublicIPv6":"fd00:31:0:1::%d","BackendType":"vxlan",`+
			`"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:%d"},"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:01:%d"}}`, n, n, n, n)
		lab.Must(t, l.Etcd.Put(t.Context(), key, value))
		shows(n, true)
		lab.Must(t, l.Etcd.Delete(t.Context(), key))
		shows(n, false)
	}
}
