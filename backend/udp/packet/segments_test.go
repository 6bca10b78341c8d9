package packet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"flannel/internal/ipfam"
)

// super is a packet of many segments as the kernel hands it over: without
// checksum.
func super(f ipfam.Family, isTCP bool, size int, payload []byte) (Packet, Vnet) {
	p := udp(f, payload)
	v := Vnet{flags: vnetNeedsCsum, gsoType: gsoUDP, gsoSize: uint16(size), checksumAt: udpSum}
	if isTCP {
		p = tcp(f, 0xfffffff0, tcpACK|tcpPSH|tcpCWR, payload)
		v.gsoType, v.checksumAt = ipfam.Pair[uint8]{gsoTCPv4, gsoTCPv6}[f], tcpSum
	}
	v.checksumStart = uint16(p.headerLen())
	return p, v
}

func split(t testing.TB, p Packet, v Vnet) []Packet {
	t.Helper()
	var s Splitter
	if err := s.Start(p, v); err != nil {
		t.Fatal(err)
	}
	var out []Packet
	for {
		header := make([]byte, s.Headers())
		payload := s.Next(header)
		if payload == nil {
			return out
		}
		out = append(out, append(header, payload...))
	}
}

func TestSplit(t *testing.T) {
	for _, f := range ipfam.All() {
		for name, isTCP := range map[string]bool{"TCP": true, "UDP": false} {
			t.Run(f.String()+" "+name, func(t *testing.T) {
				payload := bytesOf(3*1001 + 7)
				p, v := super(f, isTCP, 1001, payload)
				segments := split(t, p, v)
				if len(segments) != 4 {
					t.Fatalf("%d segments", len(segments))
				}
				var got []byte
				for i, s := range segments {
					isRight(t, s)
					header := s.headerLen() + headerUDP
					if isTCP {
						header = s.headerLen() + 32
						body := s[s.headerLen():]
						if seq := binary.BigEndian.Uint32(body[tcpSeq:]); seq != 0xfffffff0+uint32(i*1001) {
							t.Errorf("segment %d has number %d", i, seq)
						}
						if psh := body[tcpFlags]&tcpPSH != 0; psh != (i == 3) {
							t.Errorf("segment %d: PSH %t", i, psh)
						}
						if cwr := body[tcpFlags]&tcpCWR != 0; cwr != (i == 0) {
							t.Errorf("segment %d: CWR %t", i, cwr)
						}
					}
					if id := binary.BigEndian.Uint16(s[4:]); f == ipfam.V4 && id != 0x1234+uint16(i) {
						t.Errorf("segment %d has ID %x", i, id)
					}
					got = append(got, s[header:]...)
				}
				if !bytes.Equal(got, payload) {
					t.Error("the payload is another one")
				}
			})
		}
	}
}

func TestSplitRefusesNonsense(t *testing.T) {
	p, v := super(ipfam.V4, true, 100, bytesOf(1000))
	for name, change := range map[string]func(*Vnet){
		"no size":            func(v *Vnet) { v.gsoSize = 0 },
		"start in IP header": func(v *Vnet) { v.checksumStart = 19 },
		"start beyond":       func(v *Vnet) { v.checksumStart = 0xffff },
		"unknown kind":       func(v *Vnet) { v.gsoType = 3 },
	} {
		bad := v
		change(&bad)
		var s Splitter
		if s.Start(p, bad) == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// merged returns what a merger makes of packets, each group as one packet.
func merged(packets []Packet, udp bool) (groups []Packet, headers []Vnet) {
	m := Merger{UDP: udp}
	take := func() {
		v, parts := m.Take()
		groups, headers = append(groups, bytes.Join(parts, nil)), append(headers, v)
	}
	for _, p := range packets {
		if !m.Add(p) {
			take()
			m.Add(p)
		}
	}
	if m.count > 0 {
		take()
	}
	return groups, headers
}

func clones(packets []Packet) []Packet {
	var out []Packet
	for _, p := range packets {
		out = append(out, bytes.Clone(p))
	}
	return out
}

func TestMergeIsTheOppositeOfSplit(t *testing.T) {
	for _, f := range ipfam.All() {
		for name, isTCP := range map[string]bool{"TCP": true, "UDP": false} {
			t.Run(f.String()+" "+name, func(t *testing.T) {
				p, v := super(f, isTCP, 1400, bytesOf(20*1400+99))
				if isTCP {
					p[p.headerLen()+tcpFlags] &^= tcpCWR
				}
				segments := split(t, p, v)
				groups, headers := merged(clones(segments), true)
				if len(groups) != 1 {
					t.Fatalf("%d groups", len(groups))
				}
				if headers[0].gsoSize != 1400 || headers[0].gsoType != v.gsoType || headers[0].Whole() {
					t.Errorf("header %+v", headers[0])
				}
				again := split(t, groups[0], headers[0])
				for i := range segments {
					if !bytes.Equal(again[i], segments[i]) {
						t.Fatalf("segment %d:\ngot  %x\nwant %x", i, again[i][:60], segments[i][:60])
					}
				}
				// The field holds the sum of the pseudo header alone.
				if !headers[0].Complete(groups[0]) {
					t.Error("not complete")
				}
				isRight(t, groups[0])
			})
		}
	}
}

func TestWhatIsNotMerged(t *testing.T) {
	a := tcp(ipfam.V4, 1000, tcpACK, bytesOf(100))
	next := func(change func(p Packet)) Packet {
		p := tcp(ipfam.V4, 1100, tcpACK, bytesOf(100))
		binary.BigEndian.PutUint16(p[4:], 0x1235)
		change(p)
		return seal(p)
	}
	tests := map[string]Packet{
		"another port":            next(func(p Packet) { p[20]++ }),
		"another address":         next(func(p Packet) { p[15]++ }),
		"a gap":                   next(func(p Packet) { p[27]++ }),
		"another acknowledgement": next(func(p Packet) { p[31]++ }),
		"another window":          next(func(p Packet) { p[34]++ }),
		"another option":          next(func(p Packet) { p[46]++ }),
		"another TTL":             next(func(p Packet) { p[8]-- }),
		"another TOS":             next(func(p Packet) { p[1] = 2 }),
		"FIN":                     next(func(p Packet) { p[33] |= tcpFIN }),
		"CWR":                     next(func(p Packet) { p[33] |= tcpCWR }),
		"a fragment":              next(func(p Packet) { p[6] = 0x20 }),
		"a longer one":            tcp(ipfam.V4, 1100, tcpACK, bytesOf(101)),
		"without payload":         tcp(ipfam.V4, 1100, tcpACK, nil),
		"UDP":                     udp(ipfam.V4, bytesOf(100)),
		"IPv6":                    tcp(ipfam.V6, 1100, tcpACK, bytesOf(100)),
	}
	broken := next(func(Packet) {})
	broken[60] ^= 1
	tests["a wrong checksum"] = broken
	header := next(func(Packet) {})
	header[10] ^= 1
	tests["a wrong header checksum"] = header
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			in := []Packet{a, b}
			groups, headers := merged(clones(in), true)
			if len(groups) != 2 || !bytes.Equal(groups[0], a) || !bytes.Equal(groups[1], b) || !headers[0].Whole() || !headers[1].Whole() {
				t.Errorf("%d groups", len(groups))
			}
		})
	}
	if groups, _ := merged([]Packet{bytes.Clone(a), next(func(Packet) {})}, true); len(groups) != 1 {
		t.Error("what should be merged is not")
	}
	first := bytes.Clone(a)
	first[60] ^= 1
	if groups, _ := merged([]Packet{first, next(func(Packet) {})}, true); len(groups) != 2 {
		t.Error("a broken first packet was repaired")
	}
	u := udp(ipfam.V4, bytesOf(100))
	if groups, _ := merged([]Packet{u, bytes.Clone(u)}, false); len(groups) != 2 {
		t.Error("UDP was merged although the kernel cannot split it")
	}
}

func TestAShortOrPushedPacketEndsTheGroup(t *testing.T) {
	number := func(p Packet, id uint16) Packet {
		binary.BigEndian.PutUint16(p[4:], id)
		return seal(p)
	}
	for name, second := range map[string]Packet{
		"short":  number(tcp(ipfam.V4, 1100, tcpACK, bytesOf(99)), 0x1235),
		"pushed": number(tcp(ipfam.V4, 1100, tcpACK|tcpPSH, bytesOf(100)), 0x1235),
	} {
		third := number(tcp(ipfam.V4, 1200, tcpACK, bytesOf(100)), 0x1236)
		if name == "short" {
			third = number(tcp(ipfam.V4, 1199, tcpACK, bytesOf(100)), 0x1236)
		}
		groups, _ := merged([]Packet{tcp(ipfam.V4, 1000, tcpACK, bytesOf(100)), second, third}, true)
		if len(groups) != 2 {
			t.Errorf("%s: %d groups, want 2", name, len(groups))
		}
	}
}

func TestNothingIsAllocatedPerPacket(t *testing.T) {
	p, v := super(ipfam.V4, true, 1400, bytesOf(10*1400))
	header := make([]byte, MaxHeader)
	var s Splitter
	var m Merger
	segments := split(t, p, v)
	if n := testing.AllocsPerRun(10, func() {
		s.Start(p, v)
		for s.Next(header[:s.Headers()]) != nil {
		}
		for _, p := range segments {
			p.Hop()
			p.Arrive(0)
			m.Add(p)
		}
		m.Take()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzSplit(f *testing.F) {
	for _, family := range ipfam.All() {
		for _, isTCP := range []bool{true, false} {
			p, v := super(family, isTCP, 100, bytesOf(950))
			b := make([]byte, VnetLen, VnetLen+len(p))
			v.Encode(b)
			f.Add(append(b, p...))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < VnetLen {
			return
		}
		v := DecodeVnet(b)
		p, ok := Parse(b[VnetLen:])
		if !ok {
			return
		}
		v.Complete(bytes.Clone(p))
		var s Splitter
		if v.Whole() || s.Start(p, v) != nil {
			return
		}
		header, total := make([]byte, MaxHeader), 0
		for {
			payload := s.Next(header[:s.Headers()])
			if payload == nil {
				break
			}
			total += len(payload)
			if q, ok := Parse(append(bytes.Clone(header[:s.Headers()]), payload...)); !ok || len(q) > s.SegmentLen() {
				t.Fatalf("segment of %d bytes, %t", len(q), ok)
			}
		}
		if total != len(p)-s.Headers() {
			t.Fatalf("%d of %d bytes", total, len(p)-s.Headers())
		}
	})
}

// FuzzMerge cuts bytes into packets; what a merger makes of them, taken apart
// again, must be the same packets in the same order.
func FuzzMerge(f *testing.F) {
	for _, family := range ipfam.All() {
		for _, isTCP := range []bool{true, false} {
			p, v := super(family, isTCP, 100, bytesOf(350))
			var all []byte
			for _, s := range split(f, p, v) {
				all = append(all, s...)
			}
			f.Add(all)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var in []Packet
		for len(b) > 0 {
			p, ok := Parse(b)
			if !ok {
				break
			}
			in = append(in, bytes.Clone(p))
			b = b[len(p):]
		}
		groups, headers := merged(clones(in), true)
		var out []Packet
		for i, g := range groups {
			if headers[i].Whole() {
				out = append(out, g)
				continue
			}
			p, ok := Parse(g)
			if !ok {
				t.Fatalf("group %d is no packet", i)
			}
			out = append(out, split(t, p, headers[i])...)
		}
		if len(out) != len(in) {
			t.Fatalf("%d packets, want %d", len(out), len(in))
		}
		for i := range in {
			if !same(in[i], out[i]) {
				t.Fatalf("packet %d:\ngot  %x\nwant %x", i, out[i], in[i])
			}
		}
	})
}

// same compares packets but for the ID of those that are never fragments.
func same(a, b Packet) bool {
	if len(a) == len(b) && a[0]>>4 == 4 && a.DontFragment() {
		a, b = bytes.Clone(a), bytes.Clone(b)
		copy(b[4:6], a[4:6])
		copy(b[10:12], a[10:12])
	}
	return bytes.Equal(a, b)
}

func BenchmarkSplit(b *testing.B) {
	p, v := super(ipfam.V4, true, 1420, bytesOf(45*1420))
	header := make([]byte, MaxHeader)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		var s Splitter
		s.Start(p, v)
		for s.Next(header[:s.Headers()]) != nil {
		}
	}
}

func BenchmarkMerge(b *testing.B) {
	p, v := super(ipfam.V4, true, 1420, bytesOf(45*1420))
	p[20+tcpFlags] = tcpACK
	segments := split(b, p, v)
	var m Merger
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		for _, s := range segments {
			m.Add(s)
		}
		m.count = 0
	}
}
