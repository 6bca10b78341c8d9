package etcd

import (
	"net/netip"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

func pair(texts ...string) ipfam.Pair[netip.Prefix] {
	var p ipfam.Pair[netip.Prefix]
	for _, text := range texts {
		s := netip.MustParsePrefix(text)
		p[ipfam.Of(s.Addr())] = s
	}
	return p
}

func addrs(texts ...string) ipfam.Pair[netip.Addr] {
	var p ipfam.Pair[netip.Addr]
	for _, text := range texts {
		a := netip.MustParseAddr(text)
		p[ipfam.Of(a)] = a
	}
	return p
}

func vxlan(mac string, public ...string) subnet.Attrs {
	a := subnet.Attrs{BackendType: "vxlan", PublicIP: addrs(public...)}
	for f := range ipfam.Addrs(a.PublicIP) {
		a.Data[f] = `{"VNI":1,"VtepMAC":"` + mac + `"}`
	}
	return a
}

func TestNames(t *testing.T) {
	for want, subnets := range map[string]ipfam.Pair[netip.Prefix]{
		"10.244.17.0-24":                    pair("10.244.17.0/24"),
		"10.244.17.0-24&fd00:10:244:3::-64": pair("10.244.17.0/24", "fd00:10:244:3::/64"),
		"fd00:10:244:3::-64":                pair("fd00:10:244:3::/64"),
	} {
		if got := encodeName(subnets); got != want {
			t.Errorf("encodeName = %q, want %q", got, want)
		}
		if got, err := decodeName(want); err != nil || got != subnets {
			t.Errorf("decodeName(%q) = %v, %v", want, got, err)
		}
	}
}

func TestOddNamesAreRejected(t *testing.T) {
	for name, readable := range map[string]ipfam.Pair[netip.Prefix]{
		"":                                {},
		"foo":                             {},
		"10.244.17.0":                     {},
		"10.244.17.0-33":                  {},
		"10.244.17.0-024":                 {},
		"0.0.0.0-0":                       {},
		"010.244.17.0-24":                 {},
		"10.244.17.0/24":                  {},
		"10.244.17.0-24/x":                {},
		"10.244.17.0-24\n":                {},
		"::ffff:10.244.17.0-120":          {},
		"fe80::%eth0-64":                  {},
		"10.244.17.5-24":                  pair("10.244.17.0/24"),
		"10.244.17.0-24&":                 pair("10.244.17.0/24"),
		"10.244.17.0-24&10.244.18.0-24":   pair("10.244.17.0/24"),
		"fd00::-64&10.244.17.0-24":        pair("10.244.17.0/24", "fd00::/64"),
		"FD00::-64":                       pair("fd00::/64"),
		"fd00:0:0::-64":                   pair("fd00::/64"),
		"10.244.17.0-24&fd00::-64&x":      pair("10.244.17.0/24", "fd00::/64"),
		strings.Repeat("1", maxName) + "": {},
		strings.Repeat("1", 10*maxName):   {},
	} {
		got, err := decodeName(name)
		if err == nil || got != readable {
			t.Errorf("decodeName(%.40q) = %v, %v; want an error and %v", name, got, err, readable)
		}
		if err != nil && len(err.Error()) > 3*maxName {
			t.Errorf("decodeName(%.40q): an error of %d bytes", name, len(err.Error()))
		}
	}
}

func TestValuesByteForByte(t *testing.T) {
	const mac = "4e:b2:6e:92:1a:7e"
	for want, attrs := range map[string]subnet.Attrs{
		`{"PublicIP":"172.31.0.2","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"4e:b2:6e:92:1a:7e"}}`: vxlan(mac, "172.31.0.2"),
		`{"PublicIP":"172.31.0.2","PublicIPv6":"fd00::2","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"4e:b2:6e:92:1a:7e"},` +
			`"BackendV6Data":{"VNI":1,"VtepMAC":"4e:b2:6e:92:1a:7e"}}`: vxlan(mac, "172.31.0.2", "fd00::2"),
		`{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::2","BackendType":"vxlan","BackendV6Data":{"VNI":1,"VtepMAC":"4e:b2:6e:92:1a:7e"}}`: vxlan(mac, "fd00::2"),
		`{"PublicIP":"172.31.0.2","PublicIPv6":null,"BackendType":"udp"}`:                                                             {BackendType: "udp", PublicIP: addrs("172.31.0.2")},
	} {
		got, err := encodeValue(attrs)
		if err != nil || string(got) != want {
			t.Errorf("encodeValue = %s, %v\nwant %s", got, err, want)
		}
		back, err := decodeValue([]byte(want))
		if err != nil || back != attrs {
			t.Errorf("decodeValue(%s) = %+v, %v", want, back, err)
		}
	}
}

func TestValuesOfOthersAreRead(t *testing.T) {
	for value, want := range map[string]subnet.Attrs{
		`{"PublicIP":"172.31.0.2"}`: {BackendType: "udp", Untyped: true, PublicIP: addrs("172.31.0.2")},
		`{"PublicIP":"172.31.0.2","PublicIPv6":"::","BackendType":"HOST-GW"}`:           {BackendType: "host-gw", PublicIP: addrs("172.31.0.2")},
		` { "publicip" : "172.31.0.2", "BackendData": null, "Later": [1, {"x": "y"}] }`: {BackendType: "udp", Untyped: true, PublicIP: addrs("172.31.0.2")},
		`{}`: {BackendType: "udp", Untyped: true},
	} {
		if got, err := decodeValue([]byte(value)); err != nil || got != want {
			t.Errorf("decodeValue(%s) = %+v, %v", value, got, err)
		}
	}
}

func TestOddValuesAreRejected(t *testing.T) {
	for _, value := range []string{
		``, `null x`, `[]`, `"x"`, `{`, `{} {}`, `{"PublicIP":null}`, `{"PublicIP":7}`, `{"PublicIP":"fd00::1"}`, `{"PublicIP":"1.2.3"}`,
		`{"PublicIP":"1.2.3.4","PublicIPv6":"1.2.3.4"}`, `{"PublicIPv6":"::ffff:1.2.3.4"}`, `{"PublicIPv6":"fe80::1%eth0"}`,
		`{"BackendType":"vx lan"}`, `{"BackendType":7}`, `{"BackendType":"` + strings.Repeat("x", 100) + `"}`,
		`{"PublicIP":"1.2.3.4","X":"` + strings.Repeat("x", maxValue) + `"}`,
	} {
		if got, err := decodeValue([]byte(value)); err == nil {
			t.Errorf("decodeValue(%.60s) = %+v, want an error", value, got)
		}
	}
}

func TestNothingIsWrittenThatWouldBeRejected(t *testing.T) {
	bad := vxlan("x", "172.31.0.2")
	bad.Data[ipfam.V4] = `{"VNI":`
	large := vxlan("x", "172.31.0.2")
	large.Data[ipfam.V4] = `"` + strings.Repeat("x", maxValue) + `"`
	mixed := vxlan("x", "172.31.0.2")
	mixed.PublicIP[ipfam.V4] = netip.MustParseAddr("fd00::1")
	for _, a := range []subnet.Attrs{bad, large, mixed} {
		if value, err := encodeValue(a); err == nil {
			t.Errorf("encodeValue = %.60s, want an error", value)
		}
	}
}

func TestDecodeKeepsWhatCouldBeRead(t *testing.T) {
	l := decode("10.244.17.0-24", []byte("garbage"), 7)
	if l.Invalid == "" || l.Subnet != pair("10.244.17.0/24") || l.Precedence.Age != 7 {
		t.Errorf("decode = %+v", l)
	}
	l = decode("strange", []byte(`{"PublicIP":"172.31.0.2"}`), 7)
	if l.Invalid == "" || l.Attrs.PublicIP != addrs("172.31.0.2") {
		t.Errorf("decode = %+v", l)
	}
}

func FuzzKey(f *testing.F) {
	for _, seed := range []string{
		"10.244.17.0-24", "10.244.17.0-24&fd00:10:244:3::-64", "fd00:10:244:3::-64",
		"", "&", "-", "10.244.17.5-24", "10.244.17.0-24&", "fe80::1%x-64", "0.0.0.0-0", "::ffff:1.2.3.0-120",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		subnets, err := decodeName(name)
		for family, s := range ipfam.Prefixes(subnets) {
			if ipfam.Of(s.Addr()) != family || s != s.Masked() || s.Bits() == 0 {
				t.Errorf("decodeName(%q) has %s as %s", name, s, family)
			}
		}
		if err == nil && encodeName(subnets) != name {
			t.Errorf("decodeName(%q) encodes as %q", name, encodeName(subnets))
		}
	})
}

func FuzzRecord(f *testing.F) {
	for _, seed := range []string{
		`{"PublicIP":"172.31.0.2","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"4e:b2:6e:92:1a:7e"}}`,
		`{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::2","BackendV6Data":{"VNI":1}}`,
		`{}`, `null`, `{"PublicIP":"fd00::1"}`, `{"BackendData":null}`, `{"BackendType":"\u0000"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		l := decode("10.244.17.0-24", value, 1)
		if l.Invalid != "" {
			return
		}
		// What is accepted can be written again and means the same.
		text, err := encodeValue(l.Attrs)
		if err != nil {
			if len(value) > maxValue/8 { // escapes may make it longer
				return
			}
			t.Fatalf("%q is accepted but not written: %v", value, err)
		}
		back, err := decodeValue(text)
		if err != nil || back.BackendType != l.Attrs.BackendType || back.PublicIP != l.Attrs.PublicIP {
			t.Errorf("%q comes back as %+v, %v", value, back, err)
		}
	})
}
