package uplink

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"flannel/internal/ipfam"
)

// moment is what the host has from a time after the start on, and what the
// choice is then. "default IPv4 interface" and "default IPv6 interface" say by
// number where the default routes lead; without it that is 1.
type moment struct {
	at   time.Duration
	host []string
	want string
	// missing means that the uplink is not whole.
	missing bool
}

// hostAt reads a snapshot from the lines of hostOf, the interfaces numbered from
// 1 on unless the name has another number as in "eth0#5", and "default 2".
func hostAt(lines []string) Snapshot {
	var interfaces []string
	indexes := map[int]int{}
	first := 1
	for _, line := range lines {
		if rest, ok := strings.CutPrefix(line, "default "); ok {
			first, _ = strconv.Atoi(rest)
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		name, number, numbered := strings.Cut(name, "#")
		interfaces = append(interfaces, name+" "+rest)
		if numbered {
			indexes[len(interfaces)], _ = strconv.Atoi(number)
		}
	}
	s := hostOf(interfaces...)
	for from, to := range indexes {
		for i := range s.Links {
			if s.Links[i].Index == from {
				s.Links[i].Index = to
			}
		}
		for i := range s.Addrs {
			if s.Addrs[i].Link == from {
				s.Addrs[i].Link = to
			}
		}
	}
	if first == 0 {
		return s
	}
	return s.withDefaults([]int{first}, []int{first})
}

func TestChoice(t *testing.T) {
	const s = time.Second
	const gap = 300 * time.Millisecond
	vip := []string{"eth0 10.0.0.2 10.0.0.100"}
	tests := []struct {
		name     string
		flags    Flags
		families ipfam.Pair[bool]
		moments  []moment
	}{
		{"a gap in the only address", Flags{}, v4, []moment{
			{0, []string{"eth0 10.0.0.2"}, "eth0 10.0.0.2", false},
			{s, []string{"eth0"}, "eth0 10.0.0.2", true},
			{s + gap, []string{"eth0 10.0.0.2"}, "eth0 10.0.0.2", false},
		}},
		{"a gap beside a second default route", Flags{}, v4, []moment{
			{0, []string{"eth0 10.0.0.2", "eth1 10.1.0.2"}, "eth0 10.0.0.2", false},
			{s, []string{"eth0", "eth1 10.1.0.2", "default 2"}, "eth0 10.0.0.2", true},
			{s + gap, []string{"eth0 10.0.0.2", "eth1 10.1.0.2", "default 2"}, "eth0 10.0.0.2", false},
		}},
		{"a gap beside a virtual address", Flags{}, v4, []moment{
			{0, vip, "eth0 10.0.0.2", false},
			{s, []string{"eth0 10.0.0.100"}, "eth0 10.0.0.2", true},
			{9 * s, []string{"eth0 10.0.0.100"}, "eth0 10.0.0.2", true},
			{10 * s, []string{"eth0 10.0.0.100 10.0.0.2"}, "eth0 10.0.0.2", false},
		}},
		{"a gap beside a link-local address", Flags{}, v6, []moment{
			{0, []string{"eth0 fe80::1 2001:db8::2"}, "eth0 2001:db8::2", false},
			{s, []string{"eth0 fe80::1"}, "eth0 2001:db8::2", true},
			{s + gap, []string{"eth0 fe80::1 2001:db8::2"}, "eth0 2001:db8::2", false},
		}},
		{"another address at once", Flags{}, v4, []moment{
			{0, vip, "eth0 10.0.0.2", false},
			{s, []string{"eth0 10.0.0.100"}, "eth0 10.0.0.2", true},
			{s + gap, []string{"eth0 10.0.0.100 10.0.0.3,dynamic"}, "eth0 10.0.0.3", false},
			{90 * s, []string{"eth0 10.0.0.100 10.0.0.3,dynamic 10.0.0.2"}, "eth0 10.0.0.3", false},
			{300 * s, []string{"eth0 10.0.0.100 10.0.0.3,dynamic 10.0.0.2"}, "eth0 10.0.0.3", false},
		}},
		{"another address and the default route elsewhere", Flags{}, v4, []moment{
			{0, []string{"eth0 10.0.0.2", "eth1 10.1.0.2"}, "eth0 10.0.0.2", false},
			{s, []string{"eth0 10.0.0.3", "eth1 10.1.0.2", "default 2"}, "eth0 10.0.0.3", false},
		}},
		{"the interface made again", Flags{}, v6, []moment{
			{0, []string{"eth0 fe80::1 2001:db8::2", "eth1 2001:db8:1::2"}, "eth0 2001:db8::2", false},
			{s, []string{"eth1#2 2001:db8:1::2", "default 2"}, "eth0 2001:db8::2", true},
			{s + gap, []string{"eth0#5 fe80::5", "eth1#2 2001:db8:1::2", "default 2"}, "eth0 2001:db8::2", true},
			{2 * s, []string{"eth0#5 fe80::5 2001:db8::3", "eth1#2 2001:db8:1::2", "default 2"}, "eth0 2001:db8::3", false},
		}},
		{"a virtual address is the last resort", Flags{}, v4, []moment{
			{0, vip, "eth0 10.0.0.2", false},
			{s, []string{"eth0 10.0.0.100"}, "eth0 10.0.0.2", true},
			{11 * s, []string{"eth0 10.0.0.100"}, "eth0 10.0.0.100", false},
			{20 * s, []string{"eth0 10.0.0.100 10.0.0.2,dynamic"}, "eth0 10.0.0.100", false},
			{79 * s, []string{"eth0 10.0.0.100"}, "eth0 10.0.0.100", false},
			{80 * s, []string{"eth0 10.0.0.100 10.0.0.2,dynamic"}, "eth0 10.0.0.100", false},
			{139 * s, []string{"eth0 10.0.0.100 10.0.0.2,dynamic"}, "eth0 10.0.0.100", false},
			{140 * s, []string{"eth0 10.0.0.100 10.0.0.2,dynamic"}, "eth0 10.0.0.2", false},
			{900 * s, []string{"eth0 10.0.0.100 10.0.0.2,dynamic"}, "eth0 10.0.0.2", false},
		}},
		{"one virtual address after the other", Flags{}, v4, []moment{
			{0, []string{"eth0 10.0.0.2 10.0.0.100 10.0.0.101"}, "eth0 10.0.0.2", false},
			{s, []string{"eth0 10.0.0.100 10.0.0.101"}, "eth0 10.0.0.2", true},
			{11 * s, []string{"eth0 10.0.0.100 10.0.0.101"}, "eth0 10.0.0.100", false},
			{12 * s, []string{"eth0 10.0.0.101"}, "eth0 10.0.0.100", true},
			{12*s + gap, []string{"eth0 10.0.0.101 10.0.0.3"}, "eth0 10.0.0.3", false},
		}},
		{"another interface is the last resort", Flags{}, v4, []moment{
			{0, []string{"eth0 10.0.0.2", "eth1 10.1.0.2"}, "eth0 10.0.0.2", false},
			{s, []string{"eth0", "eth1 10.1.0.2", "default 2"}, "eth0 10.0.0.2", true},
			{10*s + gap, []string{"eth0", "eth1 10.1.0.2", "default 2"}, "eth0 10.0.0.2", true},
			{11 * s, []string{"eth0", "eth1 10.1.0.2", "default 2"}, "eth1 10.1.0.2", false},
			{20 * s, []string{"eth0 10.0.0.2", "eth1 10.1.0.2", "default 2"}, "eth1 10.1.0.2", false},
			{200 * s, []string{"eth0 10.0.0.2", "eth1 10.1.0.2", "default 1"}, "eth1 10.1.0.2", false},
			{259 * s, []string{"eth0 10.0.0.2", "eth1 10.1.0.2", "default 1"}, "eth1 10.1.0.2", false},
			{260 * s, []string{"eth0 10.0.0.2", "eth1 10.1.0.2", "default 1"}, "eth0 10.0.0.2", false},
			{500 * s, []string{"eth0 10.0.0.2", "eth1 10.1.0.2", "default 2"}, "eth0 10.0.0.2", false},
		}},
		{"back to the address that was in use", Flags{Iface: []string{"eth0", "eth1"}}, v4, []moment{
			{0, []string{"eth0 10.0.0.2,dynamic", "eth1 10.1.0.2"}, "eth0 10.0.0.2", false},
			{s, []string{"eth0", "eth1 10.1.0.2"}, "eth0 10.0.0.2", true},
			{11 * s, []string{"eth0", "eth1 10.1.0.2"}, "eth1 10.1.0.2", false},
			{20 * s, []string{"eth0 10.0.0.100 10.0.0.2,dynamic", "eth1 10.1.0.2"}, "eth1 10.1.0.2", false},
			{80 * s, []string{"eth0 10.0.0.100 10.0.0.2,dynamic", "eth1 10.1.0.2"}, "eth0 10.0.0.2", false},
		}},
		{"the last resort is lost while something better is waited for", Flags{Iface: []string{"eth0", "eth1"}}, v4, []moment{
			{0, []string{"eth0 10.0.0.2,dynamic", "eth1 10.1.0.2"}, "eth0 10.0.0.2", false},
			{s, []string{"eth0", "eth1 10.1.0.2"}, "eth0 10.0.0.2", true},
			{11 * s, []string{"eth0", "eth1 10.1.0.2"}, "eth1 10.1.0.2", false},
			{20 * s, []string{"eth0 10.0.0.100 10.0.0.2,dynamic", "eth1 10.1.0.2"}, "eth1 10.1.0.2", false},
			{30 * s, []string{"eth0 10.0.0.100 10.0.0.2,dynamic", "eth1"}, "eth1 10.1.0.2", true},
			{40 * s, []string{"eth0 10.0.0.100 10.0.0.2,dynamic", "eth1"}, "eth0 10.0.0.2", false},
		}},
		{"an address elsewhere that comes late", Flags{}, v4, []moment{
			{0, []string{"eth0 10.0.0.2"}, "eth0 10.0.0.2", false},
			{s, []string{"eth1#2", "default 0"}, "eth0 10.0.0.2", true},
			{60 * s, []string{"eth1#2 10.1.0.2", "default 2"}, "eth1 10.1.0.2", false},
		}},
		{"a global address that comes after the start", Flags{}, v6, []moment{
			{0, []string{"eth0 fe80::1"}, "", true},
			{2 * s, []string{"eth0 fe80::1 2001:db8::2,dynamic"}, "eth0 2001:db8::2", false},
		}},
		{"a global address that is being checked at the start", Flags{}, dual, []moment{
			{0, []string{"eth0 10.0.0.2 fe80::1 2001:db8::2,unfit"}, "", true},
			{s, []string{"eth0 10.0.0.2 fe80::1 2001:db8::2"}, "eth0 10.0.0.2 2001:db8::2", false},
		}},
		{"a link-local address is the last resort at the start", Flags{}, dual, []moment{
			{0, []string{"eth0 10.0.0.2 fe80::1 2001:db8::2,unfit"}, "", true},
			{9 * s, []string{"eth0 10.0.0.2 fe80::1 2001:db8::2,unfit"}, "", true},
			{10 * s, []string{"eth0 10.0.0.2 fe80::1 2001:db8::2,unfit"}, "eth0 10.0.0.2 fe80::1", false},
			{500 * s, []string{"eth0 10.0.0.1 10.0.0.2 fe80::1 2001:db8::2"}, "eth0 10.0.0.2 2001:db8::2", false},
		}},
		{"an interface that comes long after the start", Flags{}, v6, []moment{
			{0, []string{"eth0", "default 0"}, "", true},
			{100 * s, []string{"eth0 fe80::1"}, "", true},
			{102 * s, []string{"eth0 fe80::1 2001:db8::2"}, "eth0 2001:db8::2", false},
		}},
		{"a link-local address is the last resort", Flags{}, v6, []moment{
			{0, []string{"eth0 fe80::1 2001:db8::2"}, "eth0 2001:db8::2", false},
			{s, []string{"eth0 fe80::1"}, "eth0 2001:db8::2", true},
			{11 * s, []string{"eth0 fe80::1"}, "eth0 fe80::1", false},
			{60 * s, []string{"eth0 fe80::1 2001:db8::3"}, "eth0 2001:db8::3", false},
			{61 * s, []string{"eth0 fe80::1 2001:db8::2 2001:db8::3"}, "eth0 2001:db8::3", false},
		}},
		{"an interface that is down for long", Flags{}, v6, []moment{
			{0, []string{"eth0 fe80::1 2001:db8::2"}, "eth0 2001:db8::2", false},
			{s, []string{"eth0"}, "eth0 2001:db8::2", true},
			{100 * s, []string{"eth0 fe80::1"}, "eth0 2001:db8::2", true},
			{102 * s, []string{"eth0 fe80::1 2001:db8::2"}, "eth0 2001:db8::2", false},
		}},
		{"a link-local address that a flag names", Flags{Iface: []string{"fe80::1"}}, v6, []moment{
			{0, []string{"eth0 fe80::1 2001:db8::2"}, "eth0 fe80::1", false},
			{s, []string{"eth0 2001:db8::2"}, "eth0 fe80::1", true},
			{60 * s, []string{"eth0 2001:db8::2"}, "eth0 fe80::1", true},
			{61 * s, []string{"eth0 2001:db8::2 fe80::1"}, "eth0 fe80::1", false},
		}},
		{"an IPv4 link-local address", Flags{}, v4, []moment{
			{0, []string{"eth0 169.254.7.7"}, "", true},
			{10 * s, []string{"eth0 169.254.7.7"}, "eth0 169.254.7.7", false},
			{11 * s, []string{"eth0 169.254.7.7 10.0.0.2"}, "eth0 10.0.0.2", false},
		}},
		{"one family is lost and the other stays", Flags{Iface: []string{"eth0", "eth1"}}, dual, []moment{
			{0, []string{"eth0 10.0.0.2 2001:db8::2", "eth1 10.1.0.2 2001:db8:1::2"}, "eth0 10.0.0.2 2001:db8::2", false},
			{s, []string{"eth0 10.0.0.2", "eth1 10.1.0.2 2001:db8:1::2"}, "eth0 10.0.0.2 2001:db8::2", true},
			{60 * s, []string{"eth0 10.0.0.2", "eth1 10.1.0.2 2001:db8:1::2"}, "eth0 10.0.0.2 2001:db8::2", true},
			{61 * s, []string{"eth0 10.0.0.2 2001:db8::3", "eth1 10.1.0.2 2001:db8:1::2"}, "eth0 10.0.0.2 2001:db8::3", false},
		}},
		{"each family finds its address on its own", Flags{}, dual, []moment{
			{0, []string{"eth0 10.0.0.2 fe80::1 2001:db8::2"}, "eth0 10.0.0.2 2001:db8::2", false},
			{s, []string{"eth0 fe80::1"}, "eth0 10.0.0.2 2001:db8::2", true},
			{2 * s, []string{"eth0 fe80::1 10.0.0.3"}, "eth0 10.0.0.3 2001:db8::2", true},
			{11 * s, []string{"eth0 fe80::1 10.0.0.3"}, "eth0 10.0.0.3 fe80::1", false},
			{20 * s, []string{"eth0 fe80::1 10.0.0.3 10.0.0.2 2001:db8::2"}, "eth0 10.0.0.3 2001:db8::2", false},
			{200 * s, []string{"eth0 fe80::1 10.0.0.3 10.0.0.2 2001:db8::2"}, "eth0 10.0.0.3 2001:db8::2", false},
		}},
		{"both families move together", Flags{}, dual, []moment{
			{0, []string{"eth0 10.0.0.2 2001:db8::2", "eth1 10.1.0.2 2001:db8:1::2"}, "eth0 10.0.0.2 2001:db8::2", false},
			{s, []string{"eth0 10.0.0.2", "eth1 10.1.0.2 2001:db8:1::2", "default 2"}, "eth0 10.0.0.2 2001:db8::2", true},
			{9 * s, []string{"eth0", "eth1 10.1.0.2 2001:db8:1::2", "default 2"}, "eth0 10.0.0.2 2001:db8::2", true},
			{18 * s, []string{"eth0", "eth1 10.1.0.2 2001:db8:1::2", "default 2"}, "eth0 10.0.0.2 2001:db8::2", true},
			{19 * s, []string{"eth0", "eth1 10.1.0.2 2001:db8:1::2", "default 2"}, "eth1 10.1.0.2 2001:db8:1::2", false},
			{30 * s, []string{"eth0 10.0.0.2", "eth1 10.1.0.2 2001:db8:1::2", "default 1"}, "eth1 10.1.0.2 2001:db8:1::2", false},
			{100 * s, []string{"eth0 10.0.0.2 2001:db8::2", "eth1 10.1.0.2 2001:db8:1::2"}, "eth1 10.1.0.2 2001:db8:1::2", false},
			{160 * s, []string{"eth0 10.0.0.2 2001:db8::2", "eth1 10.1.0.2 2001:db8:1::2"}, "eth0 10.0.0.2 2001:db8::2", false},
		}},
		{"the named address is waited for", Flags{Iface: []string{"10.0.0.2"}}, v4, []moment{
			{0, vip, "eth0 10.0.0.2", false},
			{s, []string{"eth0 10.0.0.100 10.0.0.3"}, "eth0 10.0.0.2", true},
			{60 * s, []string{"eth0 10.0.0.100 10.0.0.3"}, "eth0 10.0.0.2", true},
		}},
		{"an address that does not match", Flags{IfaceRegex: []string{`^10\.`}}, v4, []moment{
			{0, []string{"eth0 10.0.0.2"}, "eth0 10.0.0.2", false},
			{s, []string{"eth0 192.168.0.2"}, "eth0 10.0.0.2", true},
			{s + gap, []string{"eth0 192.168.0.2 10.0.0.3"}, "eth0 10.0.0.3", false},
		}},
		{"the public address of one family", Flags{PublicIP: "10.0.0.2"}, dual, []moment{
			{0, []string{"eth0 10.0.0.2 2001:db8::2"}, "eth0 10.0.0.2 2001:db8::2", false},
			{s, []string{"eth0"}, "eth0 10.0.0.2 2001:db8::2", true},
			{2 * s, []string{"eth0 2001:db8::3"}, "eth0 10.0.0.2 2001:db8::3", true},
			{3 * s, []string{"eth0 2001:db8::3 10.0.0.2"}, "eth0 10.0.0.2 2001:db8::3", false},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o, err := test.flags.Options(test.families)
			if err != nil {
				t.Fatal(err)
			}
			c := choice{options: o, grace: defaultGrace, stable: stableAfter}
			start := time.Unix(1e9, 0)
			for _, m := range test.moments {
				err := c.look(hostAt(m.host), start.Add(m.at))
				got := ""
				if c.up.Index != 0 {
					got = text(c.up)
				}
				if got != m.want || (err != nil) != m.missing {
					t.Fatalf("after %v: got %q, missing %v; want %q, missing %v", m.at, got, err, m.want, m.missing)
				}
			}
		})
	}
}

// TestTheChoiceSaysWhenToLookAgain looks only when the choice asks for it.
func TestTheChoiceSaysWhenToLookAgain(t *testing.T) {
	c := choice{options: Options{Families: v4}, grace: defaultGrace, stable: stableAfter}
	now := time.Unix(1e9, 0)
	look := func(want string, lines ...string) {
		t.Helper()
		_ = c.look(hostAt(lines), now)
		if got := text(c.up); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	passes := func(want time.Duration) {
		t.Helper()
		next := c.next(now)
		if got := next.Sub(now); got != want {
			t.Fatalf("the next look is after %v, want %v", got, want)
		}
		now = next
	}
	look("eth0 10.0.0.2", "eth0 10.0.0.2 10.0.0.100")
	if next := c.next(now); !next.IsZero() {
		t.Errorf("the next look is at %v although all is well", next)
	}
	look("eth0 10.0.0.2", "eth0 10.0.0.100")
	passes(defaultGrace)
	look("eth0 10.0.0.100", "eth0 10.0.0.100")
	if !c.open() {
		t.Error("nothing looks for something better")
	}
	look("eth0 10.0.0.100", "eth0 10.0.0.100 10.0.0.2")
	passes(stableAfter)
	look("eth0 10.0.0.2", "eth0 10.0.0.100 10.0.0.2")
	if c.open() {
		t.Error("something better is looked for although nothing is forced")
	}
}
