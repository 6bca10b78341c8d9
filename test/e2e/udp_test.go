package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/lab"
	"flannel/lab/ping"
)

const udpBackend = `{"Type": "udp"}`

func TestUDP(t *testing.T) {
	tests := map[string]struct {
		families lab.Families
		mtu      int
	}{"IPv4": {lab.IPv4, 1472}, "IPv6": {lab.IPv6, 1452}, "dual stack": {lab.Dual, 1452}}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 3, Families: tt.families, Backend: udpBackend})
			up(t, l)
			if mtu := envOf(t, l.Hosts[0]).MTU; mtu != tt.mtu {
				t.Errorf("MTU %d, want %d", mtu, tt.mtu)
			}
		})
	}
}

// TestUDPRestarts kills the daemon under a continuous ping. Nothing can be moved
// meanwhile, but the device, its addresses and routes stay.
func TestUDPRestarts(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual, Backend: udpBackend})
	up(t, l)
	h := l.Hosts[0]
	before, index := dataPath(t, h), indexOf(t, h, "flannel0")
	for range 5 {
		lab.Must(t, h.Kill())
		if now := dataPathWithoutCarrier(t, h); now != withoutCarrier(before) {
			t.Fatalf("before:\n%s\nwithout the daemon:\n%s", before, now)
		}
		lab.Must(t, h.StartFlanneld())
		ready(t, h)
		connected(t, l)
	}
	if indexOf(t, h, "flannel0") != index {
		t.Error("the device is another one")
	}
	v4, v6 := startPing(t, h, l.Hosts[1], ipfam.V4), startPing(t, h, l.Hosts[1], ipfam.V6)
	start := time.Now()
	lab.Must(t, h.Kill())
	lab.Must(t, h.StartFlanneld())
	ready(t, h)
	away := time.Since(start)
	connected(t, l)
	for _, series := range []*ping.Series{v4, v6} {
		result := series.Stop()
		t.Logf("%d of %d pings lost in %v, longest gap %v", result.Lost, result.Sent, away, result.LongestGap)
		// Beside what is sent meanwhile, what is on its way at both ends of it.
		if most := int(away/pingInterval) + 20; result.Lost > most {
			t.Errorf("%d pings lost, at most %d were sent while the daemon was away", result.Lost, most)
		}
	}
}

func indexOf(t *testing.T, h *lab.Host, name string) int {
	t.Helper()
	link, err := h.Interface(name)
	lab.Must(t, err)
	return link.Attrs().Index
}

// withoutCarrier drops what the kernel reports about a TUN device that nobody is
// attached to.
func withoutCarrier(text string) string {
	return strings.NewReplacer(" linkdown", "", "<NO-CARRIER,", "<", ",LOWER_UP", "",
		"state UP", "state", "state UNKNOWN", "state", "state DOWN", "state").Replace(text)
}

func dataPathWithoutCarrier(t *testing.T, h *lab.Host) string { return withoutCarrier(dataPath(t, h)) }

// TestUDPDoesNotDependOnTheNumber lets flannel's device have the first number.
func TestUDPDoesNotDependOnTheNumber(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, Backend: udpBackend})
	h := l.Hosts[0]
	onHost(t, h, "ip tuntap add dev flannel0 mode tun")
	up(t, l)
	if text := onHost(t, h, "ip route show 10.244.0.0/16"); !strings.Contains(text, "dev flannel1 ") {
		t.Errorf("route %q", text)
	}
	restart(t, h, func() { onHost(t, h, "ip link del flannel0") })
	connected(t, l)
	if text := onHost(t, h, "ip link show type tun"); strings.Contains(text, "flannel0") {
		t.Errorf("devices:\n%s", text)
	}
}

// TestUDPLeavesTheWayToFlannel lets flannel come back: its route wins.
func TestUDPLeavesTheWayToFlannel(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1, Backend: udpBackend})
	h := l.Hosts[0]
	lab.Must(t, h.StartFlanneld())
	ready(t, h)
	lab.Must(t, h.Stop())
	onHost(t, h, "ip tuntap add dev flannel1 mode tun")
	onHost(t, h, "ip addr add "+subnetOf(t, h)[ipfam.V4].Addr().String()+"/32 dev flannel1")
	onHost(t, h, "ip link set flannel1 up")
	onHost(t, h, "ip route add 10.244.0.0/16 dev flannel1")
	if text := onHost(t, h, "ip route get 10.244.250.1"); !strings.Contains(text, "dev flannel1 ") {
		t.Errorf("route %q", text)
	}
	record := leases(t, l)[keyOf(t, h)]
	if want := fmt.Sprintf(`{"PublicIP":"%s","PublicIPv6":null,"BackendType":"udp"}`, h.Addr(ipfam.V4)); record != want {
		t.Errorf("record %s, want %s", record, want)
	}
}
