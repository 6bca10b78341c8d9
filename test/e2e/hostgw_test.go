package e2e

import (
	"fmt"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
	"flannel/subnet/env"
)

func TestHostGW(t *testing.T) {
	tests := map[string]lab.Families{"IPv4": lab.IPv4, "IPv6": lab.IPv6, "dual stack": lab.Dual}
	for name, families := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 3, Families: families, Backend: `{"Type": "host-gw"}`})
			up(t, l)
			if mtu := envOf(t, l.Hosts[0]).MTU; mtu != 1500 {
				t.Errorf("MTU %d, want the uplink's 1500", mtu)
			}
		})
	}
}

func TestHostGWLeavesOutWhoIsNotOnTheLink(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 3, Links: 2, Families: lab.Dual, Backend: `{"Type": "host-gw"}`})
	ctx := t.Context()
	lab.Must(t, l.Up(ctx))
	from, near, far := l.Hosts[0], l.Hosts[2], l.Hosts[1]
	eventually.Says(t, func() (string, bool) {
		text := status(t, from)
		return text, strings.Contains(text, "is not on the link of eth0") && strings.Contains(text, `"how": "unreachable"`)
	})
	if text := routeTo(t, from, far, ipfam.V4) + routeTo(t, from, far, ipfam.V6); text != "" {
		t.Errorf("route to the peer on another link: %s", text)
	}
	eventually.Says(t, func() (string, bool) {
		text := routeTo(t, from, near, ipfam.V4)
		return text, strings.Contains(text, "via "+near.Addr(ipfam.V4).String())
	})
	// The hosts move to one link, as far as routes go, and are taken in.
	onHost(t, from, fmt.Sprintf("ip route add %s/32 dev eth0", far.Addr(ipfam.V4)))
	eventually.Says(t, func() (string, bool) {
		text := routeTo(t, from, far, ipfam.V4)
		return text, strings.Contains(text, "via "+far.Addr(ipfam.V4).String())
	})
	onHost(t, from, fmt.Sprintf("ip route del %s/32 dev eth0", far.Addr(ipfam.V4)))
	eventually.Says(t, func() (string, bool) {
		text := routeTo(t, from, far, ipfam.V4)
		return text, text == ""
	})
}

func TestHostGWRefusesAPublicAddressThatIsNotItsOwn(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1, Backend: `{"Type": "host-gw"}`})
	h := l.Hosts[0]
	h.Flags = []string{"--public-ip=203.0.113.9"}
	lab.Must(t, h.StartFlanneld())
	eventually.Says(t, func() (string, bool) {
		select {
		case <-h.Flanneld().Exited():
			return h.Log(), true
		default:
			return "still running", false
		}
	})
	if text := h.Log(); h.Flanneld().ExitCode() != 1 || !strings.Contains(text, "203.0.113.9") {
		t.Errorf("exit code %d:\n%s", h.Flanneld().ExitCode(), text)
	}
	if records := leases(t, l); len(records) != 0 {
		t.Errorf("published all the same: %v", records)
	}
}

// TestHostGWAfterFlannel lets the daemon find the routes that flannel leaves:
// those of peers that are gone vanish, the user's stay. Where no flannel has run
// since the host was started, none is flannel's.
func TestHostGWAfterFlannel(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, Backend: `{"Type": "host-gw"}`})
	h := l.Hosts[0]
	const users = "10.244.252.0/25 via 172.31.1.12 dev eth0"
	for _, route := range []string{
		"10.244.251.0/24 via 172.31.1.12 dev eth0", users, "198.51.100.0/24 via 172.31.1.12 dev eth0",
	} {
		onHost(t, h, "ip route add "+route)
	}
	lab.Must(t, h.Do(func() error {
		_, err := env.Write(lab.DefaultSubnetFile, standInEnv())
		return err
	}))
	fresh := l.Hosts[1]
	onHost(t, fresh, "ip route add 10.244.251.0/24 via 172.31.1.11 dev eth0")
	up(t, l)
	if text := onHost(t, fresh, "ip route show"); !strings.Contains(text, "10.244.251.0/24") {
		t.Errorf("routes of a host without flannel:\n%s", text)
	}
	text := onHost(t, h, "ip route show")
	if strings.Contains(text, "10.244.251.0/24") || !strings.Contains(text, users) || !strings.Contains(text, "198.51.100.0/24") {
		t.Errorf("routes:\n%s", text)
	}
}

// status returns what /status holds.
func status(t *testing.T, h *lab.Host) string {
	t.Helper()
	_, text, err := h.Flanneld().Get(t.Context(), "/status")
	lab.Must(t, err)
	return text
}
