package backend_test

import (
	"net/netip"
	"testing"

	"flannel/backend"
)

func TestTheAddressesThatAProbeAsksAreInTheSubnet(t *testing.T) {
	all := backend.Probe{Device: true, Bridge: true}
	for _, c := range []struct {
		probe                  backend.Probe
		subnet, device, bridge string
	}{
		{all, "10.5.2.0/24", "10.5.2.0", "10.5.2.1"},
		{all, "fc00:0:0:2::/64", "fc00:0:0:2::", "fc00:0:0:2::1"},
		{all, "10.5.2.7/32", "10.5.2.7", ""},
		{all, "255.255.255.255/32", "255.255.255.255", ""},
		{backend.Probe{Bridge: true}, "10.5.2.0/24", "", "10.5.2.1"},
		{backend.Probe{Device: true}, "10.5.2.0/24", "10.5.2.0", ""},
		{backend.Probe{}, "10.5.2.0/24", "", ""},
	} {
		text := func(a netip.Addr) string {
			if !a.IsValid() {
				return ""
			}
			return a.String()
		}
		device, bridge := c.probe.Addrs(netip.MustParsePrefix(c.subnet))
		if text(device) != c.device || text(bridge) != c.bridge {
			t.Errorf("%+v of %s: got %s and %s", c.probe, c.subnet, device, bridge)
		}
	}
}
