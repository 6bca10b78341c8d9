package uplink

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"flannel/backend"
	"flannel/internal/ipfam"
)

var (
	v4   = ipfam.Pair[bool]{true, false}
	v6   = ipfam.Pair[bool]{false, true}
	dual = ipfam.Pair[bool]{true, true}
)

// hostOf reads a snapshot from lines "name address[,word]...". Interfaces are
// numbered from 1 on.
func hostOf(lines ...string) Snapshot {
	var s Snapshot
	for i, line := range lines {
		fields := strings.Fields(line)
		s.Links = append(s.Links, Link{Index: i + 1, Name: fields[0], MTU: 1500, Up: true})
		for _, field := range fields[1:] {
			words := strings.Split(field, ",")
			a := Addr{Link: i + 1, IP: netip.MustParseAddr(words[0])}
			for _, word := range words[1:] {
				a.Dynamic = a.Dynamic || word == "dynamic"
				a.Unfit = a.Unfit || word == "unfit"
			}
			s.Addrs = append(s.Addrs, a)
		}
	}
	return s
}

func (s Snapshot) withDefaults(v4, v6 []int) Snapshot {
	s.Defaults = ipfam.Pair[[]int]{v4, v6}
	return s
}

func text(up backend.Uplink) string {
	words := []string{up.Name}
	for f, a := range ipfam.Addrs(up.Addr) {
		words = append(words, a.String())
		if up.Public[f] != a {
			words = append(words, "public", up.Public[f].String())
		}
	}
	return strings.Join(words, " ")
}

func TestFind(t *testing.T) {
	host := hostOf(
		"lo 127.0.0.1 ::1",
		"eth0 10.0.0.2 10.0.0.9 fe80::2 2001:db8::2",
		"eth1 192.168.1.2 fe80::3 2001:db8:1::2",
		"eth2",
	).withDefaults([]int{2, 3}, []int{2})
	split := host.withDefaults([]int{2}, []int{3})
	ranked := hostOf("eth0 169.254.1.1 10.0.0.1,dynamic 10.0.0.2 "+
		"2001:db8::1,unfit 2001:db8::2,dynamic fe80::1 2001:db8::3").withDefaults([]int{1}, []int{1})
	reach := host
	reach.Reach = Reach{Link: 3, Source: netip.MustParseAddr("192.168.1.2")}
	noReach := host
	noReach.Reach = Reach{Err: unix.ENETUNREACH}

	tests := []struct {
		name     string
		flags    Flags
		families ipfam.Pair[bool]
		host     Snapshot
		want     string
	}{
		{"the default route", Flags{}, v4, host, "eth0 10.0.0.2"},
		{"the default route of IPv6", Flags{}, v6, host, "eth0 2001:db8::2"},
		{"both default routes", Flags{}, dual, host, "eth0 10.0.0.2 2001:db8::2"},
		{"default routes that differ", Flags{}, dual, split,
			"default route: ipv4 leaves by eth0 and ipv6 by eth1: name one with --iface"},
		{"no default route", Flags{}, v6, host.withDefaults([]int{2}, nil),
			"default route: none for ipv6, see 'ip -6 route show default'"},
		{"an empty name is none", Flags{Iface: []string{"", " "}, IfaceRegex: []string{""}}, v4, host, "eth0 10.0.0.2"},

		{"a name", Flags{Iface: []string{"eth1"}}, dual, host, "eth1 192.168.1.2 2001:db8:1::2"},
		{"an address", Flags{Iface: []string{"10.0.0.9"}}, dual, host, "eth0 10.0.0.9 2001:db8::2"},
		{"an address of the family that is off", Flags{Iface: []string{"2001:db8:1::2"}}, v4, host, "eth1 192.168.1.2"},
		{"an address that is not for general use", Flags{Iface: []string{"2001:db8::1"}}, v6, ranked, "eth0 2001:db8::1"},
		{"the first that does", Flags{Iface: []string{"eth9", "eth2", "eth1", "eth0"}}, v4, host, "eth1 192.168.1.2"},
		{"names before patterns", Flags{Iface: []string{"eth1"}, IfaceRegex: []string{"eth0"}}, v4, host, "eth1 192.168.1.2"},
		{"patterns after names", Flags{Iface: []string{"eth9"}, IfaceRegex: []string{"eth0"}}, v4, host, "eth0 10.0.0.2"},
		{"nothing fits", Flags{Iface: []string{"eth9", "eth2"}, IfaceRegex: []string{"x+"}}, v4, host,
			"--iface=eth9: no such interface, see 'ip link'; " +
				"--iface=eth2: eth2 has no usable ipv4 address, see 'ip address show dev eth2'; " +
				"--iface-regex=x+: matches no address and no name, see 'ip address'"},
		{"no address of one family", Flags{Iface: []string{"eth0"}}, dual, hostOf("eth0 10.0.0.2"),
			"--iface=eth0: eth0 has no usable ipv6 address, see 'ip address show dev eth0'"},

		{"a pattern for an address", Flags{IfaceRegex: []string{`^10\.0\.0\.9$`}}, v4, host, "eth0 10.0.0.9"},
		{"a pattern for one of two families", Flags{IfaceRegex: []string{`^10\.0\.0\.9$`}}, dual, host, "eth0 10.0.0.9 2001:db8::2"},
		{"a pattern for a name", Flags{IfaceRegex: []string{`^eth1$`}}, v4, host, "eth1 192.168.1.2"},
		{"addresses before names", Flags{IfaceRegex: []string{`eth0|^192`}}, v4, host, "eth1 192.168.1.2"},
		{"addresses of the family that is off", Flags{IfaceRegex: []string{`2001:db8:1|eth0`}}, v4, host, "eth0 10.0.0.2"},

		{"what reaches an address", Flags{CanReach: "192.0.2.1"}, dual, reach, "eth1 192.168.1.2 2001:db8:1::2"},
		{"nothing reaches it", Flags{CanReach: "192.0.2.1"}, v4, noReach,
			"--iface-can-reach=192.0.2.1: no route: network is unreachable, see 'ip route get 192.0.2.1'"},

		{"the public address", Flags{PublicIP: "10.0.0.9"}, dual, host, "eth0 10.0.0.9 2001:db8::2"},
		{"the public IPv6 address", Flags{PublicIPv6: "2001:db8:1::2"}, dual, host, "eth1 192.168.1.2 2001:db8:1::2"},
		{"both public addresses", Flags{PublicIP: "10.0.0.9", PublicIPv6: "fe80::2"}, dual, host, "eth0 10.0.0.9 fe80::2"},
		{"the public address of the family that is off", Flags{PublicIP: "192.168.1.2"}, v6, host, "eth0 2001:db8::2"},
		{"a public address elsewhere", Flags{PublicIP: "203.0.113.1"}, v4, host,
			"--public-ip=203.0.113.1: no interface has this address, see 'ip address'; " +
				"behind an address translation name the interface with --iface"},
		{"a public address elsewhere and a name", Flags{PublicIP: "203.0.113.1", Iface: []string{"eth1"}}, v4, host,
			"eth1 192.168.1.2 public 203.0.113.1"},

		{"global and permanent first", Flags{}, dual, ranked, "eth0 10.0.0.2 2001:db8::3"},
		{"dynamic before link-local", Flags{}, dual,
			hostOf("eth0 169.254.1.1 10.0.0.1,dynamic fe80::1 2001:db8::1,dynamic").withDefaults([]int{1}, []int{1}),
			"eth0 10.0.0.1 2001:db8::1"},
		{"link-local when there is nothing else", Flags{}, dual,
			hostOf("eth0 169.254.1.1 fe80::1 2001:db8::1,unfit").withDefaults([]int{1}, []int{1}), "eth0 169.254.1.1 fe80::1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o, err := test.flags.Options(test.families)
			if err != nil {
				t.Fatal(err)
			}
			up, _, err := find(o, test.host)
			got := text(up)
			if err != nil {
				var notFound *notFoundError
				if !errors.As(err, &notFound) {
					t.Fatal(err)
				}
				got = notFound.Wanted
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestHowTheUplinkWasFound(t *testing.T) {
	host := hostOf("eth0 192.0.2.1", "eth1 198.51.100.1").withDefaults([]int{1}, nil)
	for want, flags := range map[string]Flags{
		"default route": {}, "--iface=eth1": {Iface: []string{"tun0", "eth1"}}, "--iface-regex=eth": {IfaceRegex: []string{"eth"}},
		"--public-ip=192.0.2.1": {PublicIP: "192.0.2.1"},
	} {
		o, err := flags.Options(v4)
		if err != nil {
			t.Fatal(err)
		}
		if up, _, err := find(o, host); up.Why != want || err != nil {
			t.Errorf("got %q, %v, want %q", up.Why, err, want)
		}
	}
}

func TestNotFoundSaysWhatThereIs(t *testing.T) {
	_, _, err := find(Options{Ifaces: []string{"eth9"}, Families: dual}, hostOf("eth2", "eth0 10.0.0.2 2001:db8::2"))
	want := "no uplink: --iface=eth9: no such interface, see 'ip link'; " +
		"the host has eth0 (10.0.0.2 2001:db8::2), eth2 without address"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	var many []string
	for i := range 300 {
		many = append(many, fmt.Sprintf("veth%d", i))
	}
	_, _, err = find(Options{Ifaces: []string{"eth9"}, Families: v4}, hostOf(many...))
	if err == nil || !strings.HasSuffix(err.Error(), "veth11 without address, 288 more") {
		t.Errorf("got %v", err)
	}
}

func TestBadFlags(t *testing.T) {
	tests := []struct {
		flags Flags
		want  string
	}{
		{Flags{IfaceRegex: []string{"("}}, `--iface-regex: "(" is not allowed: use a regular expression`},
		{Flags{CanReach: "here"}, `--iface-can-reach: "here" is not allowed: use an IP address`},
		{Flags{PublicIP: "fd00::1"}, `--public-ip: "fd00::1" is not allowed: use an IPv4 address`},
		{Flags{PublicIPv6: "10.0.0.1"}, `--public-ipv6: "10.0.0.1" is not allowed: use an IPv6 address`},
		{Flags{PublicIPv6: "fe80::1%eth0"}, `--public-ipv6: "fe80::1%eth0" is not allowed: use an IPv6 address`},
	}
	for _, test := range tests {
		_, err := test.flags.Options(dual)
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
}
