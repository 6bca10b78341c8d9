package e2e

import (
	"fmt"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

func TestDirectRouting(t *testing.T) {
	l := newLab(t, lab.Options{
		Hosts: 4, Links: 2, Families: lab.Dual, Backend: `{"Type": "vxlan", "DirectRouting": true}`,
	})
	up(t, l)
	for _, from := range l.Hosts {
		for _, to := range l.Hosts {
			if from != to {
				reachedOver(t, from, to, from.Link == to.Link)
			}
		}
	}
	// The host's routes decide again when they change.
	from, to := l.Hosts[0], l.Hosts[2]
	router := fmt.Sprintf("172.31.%d.1", from.Link)
	onHost(t, from, "ip route add "+to.Addr(ipfam.V4).String()+"/32 via "+router)
	eventually.Says(t, func() (string, bool) {
		text := routeTo(t, from, to, ipfam.V4)
		return text, strings.Contains(text, "dev flannel.1")
	})
	onHost(t, from, "ip route del "+to.Addr(ipfam.V4).String()+"/32 via "+router)
	eventually.Says(t, func() (string, bool) {
		text := routeTo(t, from, to, ipfam.V4)
		return text, strings.Contains(text, "dev eth0")
	})
	connected(t, l)
}

// reachedOver checks that the routes to a host's subnets are plain or go over
// the tunnel.
func reachedOver(t *testing.T, from, to *lab.Host, direct bool) {
	t.Helper()
	for f, device := range (ipfam.Pair[string]{"flannel.1", "flannel-v6.1"}).Each() {
		if direct {
			device = "via " + to.Addr(f).String() + " dev eth0"
		}
		if text := routeTo(t, from, to, f); !strings.Contains(text, device) {
			t.Errorf("%s to %s: %q, want %q", from.Name, to.Name, text, device)
		}
	}
	_, status, err := from.Flanneld().Get(t.Context(), "/status")
	lab.Must(t, err)
	if !strings.Contains(status, `"how": "direct"`) || !strings.Contains(status, `"how": "tunnel"`) {
		t.Errorf("status:\n%s", status)
	}
}

func routeTo(t *testing.T, from, to *lab.Host, f ipfam.Family) string {
	t.Helper()
	return onHost(t, from, fmt.Sprintf("ip %s route show %s", ipfam.Pair[string]{"-4", "-6"}[f], subnetOf(t, to)[f]))
}

func TestDirectRoutesHealToo(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual, Backend: `{"Type": "vxlan", "DirectRouting": true}`})
	up(t, l)
	h, peer := l.Hosts[0], l.Hosts[1]
	before := dataPath(t, h)
	faults := map[string]func(){
		"deleted": func() { onHost(t, h, place(t, "ip route del SUBNET", peer)) },
		"uplink down and up": func() {
			onHost(t, h, "ip link set eth0 down")
			onHost(t, h, "ip link set eth0 up")
			lab.Must(t, h.ConfigureUplink())
		},
		"uplink made again": func() {
			onHost(t, h, "ip link del eth0")
			lab.Must(t, h.ConnectUplink())
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			fault()
			eventually.Says(t, func() (string, bool) {
				now := dataPath(t, h)
				return "before:\n" + before + "\nnow:\n" + now, now == before
			})
			connected(t, l)
		})
	}
}
