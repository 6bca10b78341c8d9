package kernel_test

import (
	"net/netip"
	"strings"
	"testing"

	"flannel/network/kernel"
)

// overTUN is a state in which user space moves the packets.
func overTUN() kernel.State {
	return kernel.State{
		Devices: []kernel.Device{{
			Name: "flannel0", MTU: 1472, TUN: true, Addrs: []netip.Prefix{netip.MustParsePrefix("10.5.1.0/32")},
		}},
		Routes: []kernel.Route{{Dst: netip.MustParsePrefix("10.5.0.0/16"), Dev: "flannel0", Metric: 100}},
	}
}

func TestATUNDeviceStaysWithoutAProgram(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		apply(t, m, overTUN())
		for _, want := range []string{"flannel0 ", "tun", "mtu 1472", kernel.Alias(scope.Instance), "10.5.1.0/32 dev flannel0", "10.5.0.0/16 dev flannel0"} {
			if !strings.Contains(m.text(), want) {
				t.Errorf("lacks %q:\n%s", want, m.text())
			}
		}
		before := m.text()
		if stats := apply(t, m.again(scope), overTUN()); stats.Changed() != 0 || m.text() != before {
			t.Errorf("a restart changed %+v:\n%s", stats, m.text())
		}
		m.remove("link flannel0")
		m.Invalidate()
		apply(t, m, overTUN())
		if m.text() != before {
			t.Errorf("before:\n%s\nnow:\n%s", before, m.text())
		}
	})
}

func TestATUNDeviceOfOthersIsLeftAlone(t *testing.T) {
	n := newNode(t)
	n.IP("tuntap add dev flannel0 mode tun")
	before := n.Dump()
	_, err := n.Apply(t.Context(), overTUN(), false)
	if err == nil || !strings.Contains(err.Error(), "device flannel0 is there and not ours") {
		t.Errorf("got %v", err)
	}
	if n.Dump() != before {
		t.Errorf("before:\n%s\nnow:\n%s", before, n.Dump())
	}
}

func TestADeviceOfAnEarlierBackendGoes(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		apply(t, m, overTUN())
		apply(t, m.again(scope), kernel.State{})
		if strings.Contains(m.text(), "flannel0") {
			t.Errorf("left:\n%s", m.text())
		}
	})
}
