package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
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
	lab.Must(t, l.Up(t.Context()))
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
	// Pod addresses have no neighbor entries.
	if text := onHost(t, h, "ip neigh show dev flannel.1"); strings.Contains(text, peer.Pods()[0].Addr(ipfam.V4).String()) {
		t.Errorf("neighbors:\n%s", text)
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
	lab.Must(t, l.Hosts[0].StartFlanneld())
	ready(t, l.Hosts[0])
	_, err := l.Hosts[0].AddPod("pod1")
	lab.Must(t, err)
	config := `{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48", "Backend": {"Type": "vxlan"}}`
	lab.Must(t, l.Etcd.Put(t.Context(), lab.DefaultPrefix+"/config", config))
	lab.Must(t, l.Hosts[1].StartFlanneld())
	ready(t, l.Hosts[1])
	_, err = l.Hosts[1].AddPod("pod1")
	lab.Must(t, err)
	connected(t, l)
}

// TestOnDemandSurvivesAScan lets a pod try the whole network in both families,
// leased and unleased addresses, faster than anything is answered.
func TestOnDemandSurvivesAScan(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 3, Families: lab.Dual, Backend: onDemandBackend})
	lab.Must(t, l.Up(t.Context()))
	h, pod := l.Hosts[0], l.Hosts[0].Pods()[0]
	var scans ipfam.Pair[*scanner]
	for _, f := range ipfam.All() {
		scans[f] = startScan(t, pod, f)
	}
	// Both a machine on the link and a node that nobody talks to are found.
	var slowest time.Duration
	for scans[ipfam.V4].tried.Load() < 1<<16 || scans[ipfam.V6].tried.Load() < 1<<16 {
		for _, f := range ipfam.All() {
			_, _ = h.Exec(t.Context(), "ip", "neigh", "del", routerAddr(f).String(), "dev", "eth0") // unless it is gone
			start := time.Now()
			eventually.Says(t, func() (string, bool) {
				out, err := h.Exec(t.Context(), "ping", "-c1", "-W1", routerAddr(f).String())
				return out, err == nil
			})
			slowest = max(slowest, time.Since(start))
		}
	}
	for _, f := range ipfam.All() {
		eventually.Says(t, func() (string, bool) {
			_, err := pod.Ping(t.Context(), l.Hosts[2].Pods()[0].Addr(f))
			return fmt.Sprint(err), err == nil
		})
	}
	for _, f := range ipfam.All() {
		scans[f].stop()
		t.Logf("%d %s addresses tried; the gateway was found after %v at most", scans[f].tried.Load(), f, slowest)
	}
	if n := strings.Count(h.Log(), "no lease for an address"); n > 1 {
		t.Errorf("%d lines in the log", n)
	}
	for _, command := range []string{"ip route show", "ip -6 route show"} {
		if routes := strings.Count(onHost(t, h, command), "\n"); routes > 100 {
			t.Errorf("%d routes: %s", routes, command)
		}
	}
	// A lease where nobody was a moment ago is reached.
	const public = "172.31.1.99"
	lab.Must(t, l.Etcd.Put(t.Context(), lab.DefaultPrefix+"/subnets/10.244.250.0-24&fd00:10:244:fa01::-64",
		`{"PublicIP":"`+public+`","PublicIPv6":"fd00:31:0:1::99","BackendType":"vxlan",`+
			`"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:99"},"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:01:99"}}`))
	for f, dst := range (ipfam.Pair[string]{public, "fd00:31:0:1::99"}).Each() {
		eventually.Says(t, func() (string, bool) {
			scans[f].send(250, 1)
			text := onHost(t, h, "bridge fdb show dev "+ipfam.Pair[string]{"flannel.1", "flannel-v6.1"}[f])
			return text, strings.Contains(text, "dst "+dst+" ")
		})
	}
}

// scanner sends to every subnet that the network can have, over and over.
type scanner struct {
	conn   *net.UDPConn
	family ipfam.Family
	tried  atomic.Int64
	stop   func()
}

// startScan begins a scan; the caller stops it.
func startScan(t *testing.T, from *lab.Pod, f ipfam.Family) *scanner {
	t.Helper()
	s := &scanner{family: f}
	lab.Must(t, from.Do(func() (err error) {
		s.conn, err = net.ListenUDP(ipfam.Pair[string]{"udp4", "udp6"}[f], &net.UDPAddr{})
		return err
	}))
	t.Cleanup(func() { s.conn.Close() })
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := uint16(0); ; n++ {
			select {
			case <-end:
				return
			default:
			}
			s.send(byte(n>>8), byte(n))
			s.tried.Add(1)
		}
	}()
	s.stop = sync.OnceFunc(func() {
		close(end)
		<-done
	})
	t.Cleanup(s.stop)
	return s
}

// send sends to 10.244.third.fourth, or into the IPv6 subnet with that number.
func (s *scanner) send(third, fourth byte) {
	to := netip.AddrFrom4([4]byte{10, 244, third, fourth})
	if s.family == ipfam.V6 {
		to = netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x10, 4: 2, 5: 0x44, 6: third, 7: fourth, 15: 1})
	}
	_, _ = s.conn.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(to, 9)) // nobody may be there
}

// TestOnDemandNeedsNoMoreThanNetAdmin runs the daemon as an unprivileged
// container would: with one capability, and /proc/sys read-only.
func TestOnDemandNeedsNoMoreThanNetAdmin(t *testing.T) {
	programs := binaries(t)
	confined := filepath.Join(t.TempDir(), "flanneld")
	lab.Must(t, os.WriteFile(confined, []byte(`#!/bin/sh
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
