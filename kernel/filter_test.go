package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func event(typ, flags uint16, port uint32, header ...byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+12)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], flags)
	binary.NativeEndian.PutUint32(b[12:], port)
	copy(b[16:], header)
	return b
}

func onDevice(index uint32) []byte {
	return binary.NativeEndian.AppendUint32([]byte{0, 0, 0, 0}, index)
}

// routeTo is a route of others that was added, as the kernel tells of it.
func routeTo(family byte, destination ...byte) []byte {
	b := event(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, 1, family, 24, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BGP)
	attr := func(typ uint16, value []byte) {
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
		b = append(binary.NativeEndian.AppendUint16(b, typ), value...)
	}
	attr(unix.RTA_TABLE, []byte{unix.RT_TABLE_MAIN, 0, 0, 0})
	if len(destination) > 0 {
		attr(unix.RTA_DST, destination)
	}
	attr(unix.RTA_OIF, []byte{3, 0, 0, 0})
	return b
}

type filterTest struct {
	name  string
	event []byte
	want  bool
}

func TestEventFilter(t *testing.T) {
	const port, ours, uplink = 0x12345678, 7, 0x10203
	networks := []netip.Prefix{netip.MustParsePrefix("fd00:10:5::/48"), netip.MustParsePrefix("10.5.0.0/16")}
	in6 := func(address string) []byte { return netip.MustParseAddr(address).AsSlice() }
	routeOf := func(protocol byte) []byte { return []byte{unix.AF_INET, 24, 0, 0, unix.RT_TABLE_MAIN, protocol} }
	tests := []filterTest{
		{"our route", event(unix.RTM_DELROUTE, 0, 1, routeOf(RouteProtocol)...), true},
		{"our route, added", event(unix.RTM_NEWROUTE, 0, 1, routeOf(RouteProtocol)...), true},
		{"our own write", event(unix.RTM_NEWROUTE, 0, port, routeOf(RouteProtocol)...), false},
		{"foreign route", event(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, 1, routeOf(unix.RTPROT_BGP)...), false},
		{"foreign route that replaces", event(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, 1, routeOf(unix.RTPROT_BGP)...), true},
		{"foreign route inside", routeTo(unix.AF_INET, 10, 5, 2, 0), true},
		{"foreign route elsewhere", routeTo(unix.AF_INET, 10, 6, 2, 0), false},
		{"foreign default route", routeTo(unix.AF_INET), true},
		{"foreign IPv6 route inside", routeTo(unix.AF_INET6, in6("fd00:10:5:7::")...), true},
		{"foreign IPv6 route beside it", routeTo(unix.AF_INET6, in6("fd00:10:6::")...), false},
		{"foreign IPv6 route elsewhere", routeTo(unix.AF_INET6, in6("fd01:10:5:7::")...), false},
		{"foreign IPv6 route with the bytes of the IPv4 network", routeTo(unix.AF_INET6, in6("a05:200::")...), false},
		{"foreign IPv6 default route", routeTo(unix.AF_INET6), true},
		{"neighbor on ours", event(unix.RTM_DELNEIGH, 0, 1, onDevice(ours)...), true},
		{"miss on ours", event(unix.RTM_GETNEIGH, 0, 0, onDevice(ours)...), false},
		{"neighbor elsewhere", event(unix.RTM_NEWNEIGH, 0, 1, onDevice(8)...), false},
		{"uplink", event(unix.RTM_NEWLINK, 0, 0, onDevice(uplink)...), true},
		{"foreign device", event(unix.RTM_NEWLINK, 0, 0, onDevice(uplink+1)...), false},
		{"address elsewhere", event(unix.RTM_NEWADDR, 0, 0, onDevice(9)...), false},
	}
	for _, removed := range []bool{false, true} {
		vm, err := bpf.NewVM(eventFilter(port, Subscription{Devices: []int{ours, 9999, uplink}, Removals: removed}, networks))
		if err != nil {
			t.Fatal(err)
		}
		tests := append(tests, filterTest{"foreign route, removed", event(unix.RTM_DELROUTE, 0, 1, routeOf(unix.RTPROT_BGP)...), removed})
		for _, test := range tests {
			t.Run(fmt.Sprintf("%s, %v", test.name, removed), func(t *testing.T) {
				n, err := vm.Run(test.event)
				if err != nil {
					t.Fatal(err)
				}
				if got := n > 0; got != test.want {
					t.Errorf("got %v, want %v", got, test.want)
				}
			})
		}
	}
}

func TestMissFilter(t *testing.T) {
	vm, err := bpf.NewVM(missFilter([]int{7, 9}))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		event []byte
		want  bool
	}{
		"miss on ours":     {event(unix.RTM_GETNEIGH, 0, 0, onDevice(9)...), true},
		"miss elsewhere":   {event(unix.RTM_GETNEIGH, 0, 0, onDevice(8)...), false},
		"neighbor on ours": {event(unix.RTM_NEWNEIGH, 0, 0, onDevice(7)...), false},
	} {
		n, err := vm.Run(test.event)
		if got := n > 0; err != nil || got != test.want {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}
