package kernel

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"flannel/kernel/rtnl"

	"golang.org/x/sys/unix"
)

// demanding is a state in which a peer is installed when somebody asks.
func demanding() State {
	gateway := netip.MustParseAddr("10.5.2.0")
	return State{
		Devices: []Device{{
			Name: "flannel.1", MTU: 1450, MAC: MAC{2, 0, 0, 0, 0, 1},
			VXLAN: &VXLAN{VNI: 1, Local: netip.MustParseAddr("192.0.2.1"), Uplink: 1},
		}},
		OnDemandPeers: []OnDemandPeer{{
			Subnet:   netip.PrefixFrom(gateway, 24),
			Route:    Route{Dst: netip.PrefixFrom(gateway, 24), Via: gateway, Dev: "flannel.1", OnLink: true},
			Neighbor: Neighbor{"flannel.1", gateway, MAC{2, 0, 0, 0, 0, 2}},
			FDB:      FDBEntry{"flannel.1", MAC{2, 0, 0, 0, 0, 2}, netip.MustParseAddr("192.0.2.2")},
		}},
	}
}

func TestAMissIsAnsweredAlthoughTheTablesCannotBeListed(t *testing.T) {
	f := NewFake(Scope{Instance: "one"})
	f.AddLink("eth0", 1500)
	f.backing.addrs.list = func(selection, func(addrKey, struct{})) error { return errors.New("no memory") }
	if _, err := f.Apply(t.Context(), demanding(), false); err == nil {
		t.Fatal("the tables were listed: the test is pointless")
	}
	miss := Miss{f.links["flannel.1"].index, netip.MustParseAddr("10.5.2.9")}
	if answered, _, _ := f.answer(t.Context(), []Miss{miss}); answered != 1 {
		t.Error("the miss was not answered")
	}
	for _, entry := range []string{"fdb 02:00:00:00:00:02", "neigh 10.5.2.0", "route 10.5.2.0/24"} {
		if !strings.Contains(f.String(), entry) {
			t.Errorf("%q is missing in:\n%s", entry, f)
		}
	}
}

func TestMissesOnOtherDevicesAreNotJudged(t *testing.T) {
	f := NewFake(Scope{Instance: "one"})
	eth0 := f.AddLink("eth0", 1500)
	if _, err := f.Apply(t.Context(), demanding(), false); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		dev  int
		want bool
	}{{f.links["flannel.1"].index, true}, {eth0, false}} {
		body := binary.NativeEndian.AppendUint32([]byte{unix.AF_INET, 0, 0, 0}, uint32(test.dev))
		body = append(body, unix.NUD_INCOMPLETE, 0, 0, 0, 8, 0, unix.NDA_DST, 0, 10, 5, 2, 9)
		m := rtnl.Message{Type: unix.RTM_GETNEIGH, Body: body}
		if _, got := f.miss(m); got != test.want {
			t.Errorf("device %d: got miss %t, want %t", test.dev, got, test.want)
		}
		if f.isTampering(m, nil) {
			t.Errorf("device %d: a question is taken for tampering", test.dev)
		}
	}
}
