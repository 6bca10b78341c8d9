package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flannel/internal/eventually"
	"flannel/internal/ipfam"
	"flannel/internal/lab"
)

const onDemandBackend = `{"Type": "vxlan", "OnDemand": true}`

// entriesOf returns what a host's kernel has of another host, in lines.
func entriesOf(t *testing.T, h, peer *lab.Host) string {
	t.Helper()
	wanted := []string{"dst " + peer.Addr(ipfam.V4).String() + " ", "dst " + peer.Addr(ipfam.V6).String() + " "}
	for _, s := range ipfam.Prefixes(subnetOf(t, peer)) {
		wanted = append(wanted, s.Addr().String())
	}
	var found []string
	for _, command := range []string{
		"ip route show proto 70", "ip -6 route show proto 70", "ip -4 neigh show nud permanent", "ip -6 neigh show nud permanent",
		"bridge fdb show dev flannel.1", "bridge fdb show dev flannel-v6.1",
	} {
		for line := range strings.Lines(onHost(t, h, command)) {
			if slices.ContainsFunc(wanted, func(w string) bool { return strings.Contains(line, w) }) {
				found = append(found, strings.TrimSpace(line))
			}
		}
	}
	return strings.Join(found, "\n")
}

func TestOnDemand(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 3, Families: lab.Dual, Backend: onDemandBackend})
	must(t, l.Up(t.Context()))
	h, peer := l.Hosts[0], l.Hosts[1]
	for _, h := range l.Hosts {
		eventually.Says(t, func() (string, bool) {
			text := status(t, h)
			return text, strings.Count(text, "on demand") == 4
		})
	}
	if text := entriesOf(t, h, peer); text != "" {
		t.Fatalf("entries although nobody has asked:\n%s", text)
	}
	// The packet that asks is not lost.
	for f := range (ipfam.Pair[int]{}).Each() {
		took, err := h.Pods()[0].Ping(t.Context(), peer.Pods()[0].Addr(f))
		if err != nil {
			t.Errorf("the first packet: %v", err)
		}
		t.Logf("first packet over %s there and back in %v", f, took)
	}
	eventually.Says(t, func() (string, bool) {
		text := entriesOf(t, h, peer)
		return text, strings.Count(text, "\n") == 5 // three per family
	})
	if text := entriesOf(t, h, l.Hosts[2]); text != "" {
		t.Errorf("entries of a host nobody talks to:\n%s", text)
	}
	connected(t, l)
	// Pod addresses have no neighbour entries.
	if text := onHost(t, h, "ip neigh show dev flannel.1"); strings.Contains(text, peer.Pods()[0].Addr(ipfam.V4).String()) {
		t.Errorf("neighbours:\n%s", text)
	}
	// A restart keeps what is in use.
	before := dataPath(t, h)
	restart(t, h, func() {})
	if now := dataPath(t, h); now != before {
		t.Errorf("before the restart:\n%s\nafter:\n%s", before, now)
	}
	// What changes is replaced at once.
	onHost(t, peer, "ip addr del "+peer.Addr(ipfam.V4).String()+"/24 dev eth0")
	onHost(t, peer, "ip addr add 172.31.1.200/24 dev eth0")
	eventually.Says(t, func() (string, bool) {
		text := onHost(t, h, "bridge fdb show dev flannel.1")
		return text, strings.Contains(text, "dst 172.31.1.200 ") && !strings.Contains(text, "dst "+peer.Addr(ipfam.V4).String()+" ")
	})
	connected(t, l)
}

func TestOnDemandAndTheNormalModeTogether(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual, Backend: onDemandBackend})
	must(t, l.Hosts[0].StartFlanneld())
	ready(t, l.Hosts[0])
	_, err := l.Hosts[0].AddPod("pod1")
	must(t, err)
	config := `{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48", "Backend": {"Type": "vxlan"}}`
	must(t, l.Etcd.Put(t.Context(), lab.DefaultPrefix+"/config", config))
	must(t, l.Hosts[1].StartFlanneld())
	ready(t, l.Hosts[1])
	_, err = l.Hosts[1].AddPod("pod1")
	must(t, err)
	connected(t, l)
}

// TestOnDemandSurvivesAScan lets a pod try the whole network, leased and
// unleased addresses, faster than anything is answered.
func TestOnDemandSurvivesAScan(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 3, Families: lab.Dual, Backend: onDemandBackend})
	must(t, l.Up(t.Context()))
	h := l.Hosts[0]
	stop, done := make(chan struct{}), make(chan struct{})
	var tried atomic.Int64
	var conn *net.UDPConn
	must(t, h.Pods()[0].Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{})
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	go func() {
		defer close(done)
		scan(conn, &tried, stop)
	}()
	// Both a machine on the link and a node that nobody talks to are found.
	var slowest time.Duration
	for tried.Load() < 1<<16 {
		_, _ = h.Exec(t.Context(), "ip", "neigh", "del", "172.31.1.1", "dev", "eth0") // unless it is gone
		start := time.Now()
		eventually.Says(t, func() (string, bool) {
			out, err := h.Exec(t.Context(), "ping", "-c1", "-W1", "172.31.1.1")
			return out, err == nil
		})
		slowest = max(slowest, time.Since(start))
	}
	eventually.Says(t, func() (string, bool) {
		_, err := h.Pods()[0].Ping(t.Context(), l.Hosts[2].Pods()[0].Addr(ipfam.V4))
		return fmt.Sprint(err), err == nil
	})
	close(stop)
	<-done
	t.Logf("%d addresses tried; the gateway was found after %v at most", tried.Load(), slowest)
	if n := strings.Count(h.Log(), "no lease for an address"); n > 1 {
		t.Errorf("%d lines in the log", n)
	}
	if routes := strings.Count(onHost(t, h, "ip route show"), "\n"); routes > 100 {
		t.Errorf("%d routes", routes)
	}
	// A lease where nobody was a moment ago is reached.
	subnet := netip.MustParsePrefix("10.244.250.0/24")
	must(t, l.Etcd.Put(t.Context(), lab.DefaultPrefix+"/subnets/"+strings.ReplaceAll(subnet.String(), "/", "-"),
		`{"PublicIP":"172.31.1.99","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}}`))
	eventually.Says(t, func() (string, bool) {
		_, _ = conn.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(subnet.Addr().Next(), 9))
		text := onHost(t, h, "bridge fdb show dev flannel.1")
		return text, strings.Contains(text, "dst 172.31.1.99 ")
	})
}

// scan sends to every address of the network, over and over, and counts them.
func scan(conn *net.UDPConn, tried *atomic.Int64, stop <-chan struct{}) {
	network := netip.MustParsePrefix("10.244.0.0/16")
	for a := network.Addr(); ; a = a.Next() {
		if !network.Contains(a) {
			a = network.Addr()
		}
		select {
		case <-stop:
			return
		default:
		}
		_, _ = conn.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(a, 9))
		tried.Add(1)
	}
}

// TestOnDemandNeedsNoMoreThanNetAdmin runs the daemon as an unprivileged
// container would: with one capability, and /proc/sys read-only.
func TestOnDemandNeedsNoMoreThanNetAdmin(t *testing.T) {
	programs := binaries(t)
	confined := filepath.Join(t.TempDir(), "flanneld")
	must(t, os.WriteFile(confined, []byte(`#!/bin/sh
exec unshare --mount sh -c 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys &&
	exec setpriv --bounding-set=-all,+net_admin --inh-caps=-all,+net_admin "$@"' sh '`+programs.Flanneld+`' "$@"
`), 0o755))
	programs.Flanneld = confined
	l := lab.ForTest(t, lab.Options{Hosts: 2, Families: lab.Dual, Backend: onDemandBackend, Binaries: programs})
	up(t, l)
	h := l.Hosts[0]
	out := onHost(t, h, fmt.Sprintf("grep CapEff /proc/%d/status", h.Flanneld().PID()))
	if !strings.HasSuffix(strings.TrimSpace(out), "0000000000001000") {
		t.Fatalf("the test is pointless: %s", out)
	}
}
