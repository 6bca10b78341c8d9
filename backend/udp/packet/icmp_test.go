package packet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"flannel/internal/ipfam"
)

var here = ipfam.Pair[netip.Addr]{netip.MustParseAddr("10.5.1.0"), netip.MustParseAddr("fc00:0:0:1::")}

func with(p Packet, change func(Packet)) Packet {
	p = bytes.Clone(p)
	change(p)
	return p
}

func TestReport(t *testing.T) {
	kinds := map[Problem]ipfam.Pair[string]{
		NoRoute: {"3 0", "1 0"}, TimeExceeded: {"11 0", "3 0"}, TooBig: {"3 4", "2 0"},
	}
	for _, f := range ipfam.All() {
		p := udp(f, bytesOf(1400))
		for problem, want := range kinds {
			r := Report(problem, p, here[f], 1234)
			icmp := r[r.headerLen():]
			if got := fmt.Sprint(icmp[0], icmp[1]); got != want[f] {
				t.Errorf("%s: got %s, want %s", f, got, want[f])
			}
			if r.Src() != here[f] || r.Dst() != p.Src() {
				t.Errorf("from %s to %s", r.Src(), r.Dst())
			}
			if mtu := binary.BigEndian.Uint32(icmp[4:]); problem == TooBig && mtu != 1234 {
				t.Errorf("MTU %d", mtu)
			}
			if want := maxError[f]; len(r) != want || !bytes.HasPrefix(p, icmp[8:]) {
				t.Errorf("%d bytes, want %d", len(r), want)
			}
			if f == ipfam.V6 {
				isRight(t, r)
			} else if plain(r[:20]) != 0xffff || plain(icmp) != 0xffff {
				t.Error("checksums")
			}
		}
	}
}

func TestWhatIsNotReported(t *testing.T) {
	p4, p6 := udp(ipfam.V4, []byte("x")), udp(ipfam.V6, []byte("x"))
	echo4, echo6 := ip(ipfam.V4, protoICMP, make([]byte, 16)), ip(ipfam.V6, protoICMPv6, append([]byte{128}, make([]byte, 15)...))
	echo4 = seal(with(echo4, func(p Packet) { p[20] = 8 }))
	tests := map[string]struct {
		p       Packet
		problem Problem
		sent    bool
	}{
		"no route":                   {p4, NoRoute, true},
		"no route for echo":          {echo4, NoRoute, false},
		"no route for IPv6 echo":     {echo6, NoRoute, false},
		"time exceeded for echo":     {echo4, TimeExceeded, true},
		"too big for IPv6 echo":      {echo6, TooBig, true},
		"an error about an error":    {with(echo4, func(p Packet) { p[20] = 3 }), TimeExceeded, false},
		"an error about a v6 error":  {with(echo6, func(p Packet) { p[40] = 1 }), TooBig, false},
		"a later fragment":           {with(p4, func(p Packet) { p[7] = 1 }), NoRoute, false},
		"the first fragment":         {with(p4, func(p Packet) { p[6] = 0x20 }), NoRoute, true},
		"to a group":                 {with(p4, func(p Packet) { p[16] = 224 }), NoRoute, false},
		"from a group":               {with(p4, func(p Packet) { p[12] = 224 }), NoRoute, false},
		"from nobody":                {with(p4, func(p Packet) { clear(p[12:16]) }), NoRoute, false},
		"from a link-local IPv6":     {with(p6, func(p Packet) { p[8], p[9] = 0xfe, 0x80 }), NoRoute, false},
		"too big to an IPv6 group":   {with(p6, func(p Packet) { p[24] = 0xff }), TooBig, true},
		"time exceeded for IPv6 UDP": {p6, TimeExceeded, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Report(tt.problem, tt.p, here[tt.p.Family()], 1280) != nil; got != tt.sent {
				t.Errorf("sent: %t, want %t", got, tt.sent)
			}
		})
	}
	if Report(NoRoute, p4, netip.Addr{}, 0) != nil || Report(NoRoute, p4, here[ipfam.V6], 0) != nil {
		t.Error("reported without an address of its own")
	}
}

func TestFragments(t *testing.T) {
	payload := bytesOf(3000)
	p := with(udp(ipfam.V4, payload), func(p Packet) { p[6] = 0 })
	p.sealV4()
	body := bytes.Clone(p[20:])
	got := make([]byte, len(body))
	parts := Fragments(p, 1000)
	if len(parts) != 4 {
		t.Fatalf("%d parts", len(parts))
	}
	for i, f := range parts {
		field := binary.BigEndian.Uint16(f[6:])
		if len(f) > 1000 || plain(f[:20]) != 0xffff || field&0x2000 != 0 != (i < 3) {
			t.Errorf("part %d: %d bytes, %x", i, len(f), field)
		}
		copy(got[int(field&0x1fff)*8:], f[20:])
	}
	if !bytes.Equal(got, body) {
		t.Error("put together they are not what they were")
	}
	again := Fragments(parts[1], 500)
	if field := binary.BigEndian.Uint16(again[1][6:]); field != 0x2000|uint16(976/8+480/8) {
		t.Errorf("a fragment of a fragment has %x", field)
	}
	if Fragments(udp(ipfam.V4, payload), 1000) != nil || Fragments(udp(ipfam.V6, payload), 1000) != nil || Fragments(p, 27) != nil {
		t.Error("taken apart against the rules")
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(udp(ipfam.V4, []byte("x"))), 1000)
	f.Add([]byte(udp(ipfam.V6, []byte("x"))), 1280)
	f.Fuzz(func(t *testing.T, b []byte, mtu int) {
		p, ok := Parse(b)
		if !ok {
			return
		}
		for _, problem := range []Problem{NoRoute, TimeExceeded, TooBig} {
			if r := Report(problem, p, here[p.Family()], mtu); r != nil {
				if _, ok := Parse(r); !ok {
					t.Fatalf("%x", []byte(r))
				}
			}
		}
		if mtu < 0 || mtu > 65535 {
			return
		}
		for _, part := range Fragments(p, mtu) {
			if q, ok := Parse(part); !ok || len(q) > mtu {
				t.Fatalf("%x", []byte(part))
			}
		}
		p.Hop()
		p.Arrive(3)
	})
}
