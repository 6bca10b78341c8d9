package packet

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"testing"

	"flannel/internal/ipfam"
)

// plain sums 16-bit words in network order, the simple way.
func plain(pieces ...[]byte) uint16 {
	total := 0
	for _, b := range pieces {
		for i, c := range b {
			if i%2 == 0 {
				total += int(c) << 8
			} else {
				total += int(c)
			}
		}
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return uint16(total)
}

// isRight checks all checksums of a packet.
func isRight(t testing.TB, p Packet) {
	t.Helper()
	if p.Family() == ipfam.V4 && plain(p[:p.headerLen()]) != 0xffff {
		t.Errorf("IPv4 header checksum of %x", p[:20])
	}
	if _, ok := Parse(p); !ok {
		t.Fatalf("not a packet: %x", p)
	}
	addrs := p[8:40]
	if p.Family() == ipfam.V4 {
		addrs = p[12:20]
	}
	body := p[p.headerLen():]
	if plain(addrs, []byte{0, p.protocol(), byte(len(body) >> 8), byte(len(body))}, body) != 0xffff {
		t.Errorf("transport checksum of %s", hex.EncodeToString(p))
	}
}

func seal(p Packet) Packet {
	at := map[byte]int{protoTCP: tcpSum, protoUDP: udpSum, protoICMPv6: 2}[p.protocol()]
	p.setLength(len(p))
	body := p[p.headerLen():]
	if p.protocol() == protoICMP {
		body[2], body[3] = 0, 0
		sum(0).add(body).put(body[2:])
		return p
	}
	body[at], body[at+1] = 0, 0
	p.pseudo(p.protocol()).addNumber(uint16(len(body))).add(body).put(body[at:])
	return p
}

func ip(f ipfam.Family, protocol byte, body []byte) Packet {
	if f == ipfam.V4 {
		p := Packet{0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0, 10, 5, 1, 2, 10, 5, 2, 2}
		return seal(append(p, body...))
	}
	p := make(Packet, headerV6)
	p[0], p[6], p[7] = 0x60, protocol, 64
	src, dst := netip.MustParseAddr("fc00:0:0:1::2").As16(), netip.MustParseAddr("fc00:0:0:2::2").As16()
	copy(p[8:], src[:])
	copy(p[24:], dst[:])
	return seal(append(p, body...))
}

// tcp is a segment with a timestamp option.
func tcp(f ipfam.Family, seq uint32, flags byte, payload []byte) Packet {
	b := make([]byte, 32)
	b[1], b[3], b[12], b[13], b[15] = 80, 81, 8<<4, flags, 99
	binary.BigEndian.PutUint32(b[4:], seq)
	copy(b[20:], []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8})
	return ip(f, protoTCP, append(b, payload...))
}

func udp(f ipfam.Family, payload []byte) Packet {
	b := []byte{0, 53, 0, 54, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	return ip(f, protoUDP, append(b, payload...))
}

func bytesOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.IntN(256))
	}
	return b
}

func TestSumIsThatOfTheStandard(t *testing.T) {
	for n := range 300 {
		b := bytesOf(n)
		var got [2]byte
		binary.NativeEndian.PutUint16(got[:], sum(0).add(b).fold())
		if want := plain(b); binary.BigEndian.Uint16(got[:]) != want {
			t.Fatalf("%d bytes: got %x, want %x", n, got, want)
		}
	}
	ones := bytes.Repeat([]byte{0xff}, 65536)
	if !sum(0).add(ones).valid() {
		t.Error("all ones")
	}
}

func TestParse(t *testing.T) {
	v4, v6 := udp(ipfam.V4, []byte("payload")), udp(ipfam.V6, []byte("payload"))
	tests := map[string]struct {
		b    []byte
		want int
	}{
		"IPv4":                       {v4, len(v4)},
		"IPv6":                       {v6, len(v6)},
		"what follows is cut off":    {append(bytes.Clone(v4), 1, 2, 3), len(v4)},
		"cut off":                    {v4[:len(v4)-1], 0},
		"IPv6 cut off":               {v6[:len(v6)-1], 0},
		"nothing":                    {nil, 0},
		"half a header":              {v4[:19], 0},
		"half an IPv6 header":        {v6[:39], 0},
		"another version":            {append([]byte{0x55}, v4[1:]...), 0},
		"a header that is too short": {append([]byte{0x44}, v4[1:]...), 0},
		"a header beyond the packet": {append([]byte{0x4f}, v4[1:]...), 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if p, ok := Parse(tt.b); ok != (tt.want > 0) || len(p) != tt.want {
				t.Errorf("got %d bytes, %t", len(p), ok)
			}
		})
	}
}

func TestHop(t *testing.T) {
	for _, f := range ipfam.All() {
		p := udp(f, []byte("x"))
		ttl := ipfam.Pair[int]{8, 7}[f]
		for want := byte(63); want > 0; want-- {
			if !p.Hop() || p[ttl] != want {
				t.Fatalf("%s: TTL %d, want %d", f, p[ttl], want)
			}
			isRight(t, p)
		}
		before := bytes.Clone(p)
		if p.Hop() || !bytes.Equal(p, before) {
			t.Errorf("%s: a packet lives beyond its time", f)
		}
	}
}

func TestCongestionMarks(t *testing.T) {
	const dropped = 99
	// Rows are the inner, columns the outer field (RFC 6040, figure 4).
	want := map[byte][4]byte{
		notECT: {notECT, notECT, notECT, dropped},
		ect1:   {ect1, ect1, ect1, ce},
		ect0:   {ect0, ect1, ect0, ce},
		ce:     {ce, ce, ce, ce},
	}
	for _, f := range ipfam.All() {
		for inner, row := range want {
			for outer, want := range row {
				p := udp(f, []byte("x"))
				p.setTOS(0xb8 | inner)
				got := byte(dropped)
				if p.Arrive(0x28 | byte(outer)) {
					got = p.TOS() & ecnMask
				}
				if got != want {
					t.Errorf("%s, inner %d, outer %d: got %d, want %d", f, inner, outer, got, want)
				}
				if p.TOS()&^ecnMask != 0xb8 {
					t.Errorf("DSCP became %x", p.TOS())
				}
				isRight(t, p)
			}
		}
		p := udp(f, []byte("x"))
		p.setTOS(0xb8 | ect0)
		if p.Outer(true) != 0xb8|ect0 || p.Outer(false) != 0xb8 {
			t.Errorf("%s: outer TOS %x and %x", f, p.Outer(true), p.Outer(false))
		}
	}
}

func TestComplete(t *testing.T) {
	for _, f := range ipfam.All() {
		for name, p := range map[string]Packet{"TCP": tcp(f, 1, tcpACK, []byte("odd")), "UDP": udp(f, []byte("even"))} {
			want := bytes.Clone(p)
			at := map[byte]uint16{protoTCP: tcpSum, protoUDP: udpSum}[p.protocol()]
			start := p.headerLen()
			pseudo := p.pseudo(p.protocol()).addNumber(uint16(len(p) - start))
			binary.NativeEndian.PutUint16(p[start+int(at):], pseudo.fold())
			v := Vnet{flags: vnetNeedsCsum, checksumStart: uint16(start), checksumAt: at}
			if !v.Complete(p) || !bytes.Equal(p, want) {
				t.Errorf("%s %s: got %x, want %x", f, name, []byte(p), want)
			}
		}
	}
	p := udp(ipfam.V4, []byte("x"))
	for _, v := range []Vnet{
		{flags: vnetNeedsCsum, checksumStart: 2, checksumAt: 6},
		{flags: vnetNeedsCsum, checksumStart: 20, checksumAt: 8},
		{flags: vnetNeedsCsum, checksumStart: 0xffff, checksumAt: 0xfffe},
	} {
		if v.Complete(p) {
			t.Errorf("%+v was accepted", v)
		}
	}
}
