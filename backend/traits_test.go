package backend_test

import (
	"encoding/json"
	"slices"
	"testing"

	"flannel/backend"
	"flannel/backend/alloc"
	"flannel/backend/hostgw"
	"flannel/backend/udp"
	"flannel/backend/vxlan"
	"flannel/internal/ipfam"
	"flannel/kernel"
)

var every = backend.Table{alloc.Type, hostgw.Type, udp.Type, vxlan.Type}

func TestTheDevicesOfAnOverlay(t *testing.T) {
	marked := kernel.Alias("")
	for _, c := range []struct {
		link    kernel.Link
		typ     string
		overlay bool
	}{
		{kernel.Link{Name: "flannel.1", Kind: kernel.KindVXLAN}, "vxlan", true},
		{kernel.Link{Name: "flannel-v6.1", Kind: kernel.KindVXLAN}, "vxlan", true},
		{kernel.Link{Name: "flannel0", Kind: kernel.KindTUN}, "udp", true},
		{kernel.Link{Name: "renamed", Kind: kernel.KindVXLAN, Alias: marked}, "vxlan", true},
		{kernel.Link{Name: "flannel-wg", Kind: "wireguard"}, "", true},
		{kernel.Link{Name: "flannel.ipip", Kind: "ipip"}, "", true},
		{kernel.Link{Name: "flannel.1", Kind: "bridge"}, "", false},
		{kernel.Link{Name: "flannel.1", Kind: kernel.KindTUN}, "", false},
		{kernel.Link{Name: "vxlan.calico", Kind: kernel.KindVXLAN}, "", false},
		{kernel.Link{Name: "eth0"}, "", false},
		{kernel.Link{Name: "eth0", Alias: marked}, "", false},
	} {
		typ, _ := every.OfDevice(c.link)
		if typ.Name != c.typ || every.IsOverlay(c.link) != c.overlay {
			t.Errorf("%+v: got %q", c.link, typ.Name)
		}
	}
	var named []string
	for _, name := range []string{"flannel.1", "flannel-v6.4096", "flannel0", "flannel-wg-v6", "flannel.ipip", "flannel", "cni0", "eth0"} {
		if every.IsOverlayName(name) {
			named = append(named, name)
		}
	}
	if want := []string{"flannel.1", "flannel-v6.4096", "flannel0", "flannel-wg-v6", "flannel.ipip"}; !slices.Equal(named, want) {
		t.Errorf("got %v, want %v", named, want)
	}
}

func TestTheTunnelFollowsTheConfiguration(t *testing.T) {
	for object, want := range map[string]int{
		`{"Type": "udp"}`: 8285, `{"Type": "udp", "Port": 9285}`: 9285,
		`{"Type": "vxlan"}`: 8472, `{"Type": "vxlan", "Port": 4789}`: 4789,
		`{"Type": "host-gw"}`: 0, `{"Type": "alloc"}`: 0,
	} {
		var named struct{ Type string }
		if err := json.Unmarshal([]byte(object), &named); err != nil {
			t.Fatal(err)
		}
		typ, _ := every.Find(named.Type)
		config, _, err := typ.Parse(json.RawMessage(object), ipfam.Pair[bool]{true, true})
		if err != nil {
			t.Fatal(err)
		}
		if got := config.Encapsulation(); got.Port != want || got.VXLAN != nil && got.VXLAN.Port != want {
			t.Errorf("%s: got %+v, want port %d", object, got, want)
		}
	}
}
