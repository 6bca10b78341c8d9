package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

func TestAnUplinkThatIsNotThereYetIsWaitedFor(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	late := l.Hosts[0]
	onHost(t, late, "ip link del eth0")
	lab.Must(t, late.StartFlanneld())
	eventually.Says(t, func() (string, bool) {
		_, body, err := late.Flanneld().Get(t.Context(), "/readyz")
		return fmt.Sprint(body, err), strings.Contains(body, "uplink:") || strings.Contains(body, "store:")
	})
	lab.Must(t, late.ConnectUplink())
	ready(t, late)
}

// writes is how many entries a host's flanneld has written to the kernel.
func writes(t *testing.T, h *lab.Host) string {
	t.Helper()
	_, body, err := h.Flanneld().Get(t.Context(), "/metrics")
	lab.Must(t, err)
	var lines []string
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "flannel_kernel_changes_total") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// TestWhatIsNotAboutTheUplinkWritesNothing ends with a change that does lead
// to a pass, so that what came before has been seen when it is over.
func TestWhatIsNotAboutTheUplinkWritesNothing(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	up(t, l)
	h := l.Hosts[0]
	before, log := writes(t, h), h.Log()
	for _, command := range []string{
		"ip addr add 172.31.1.240/32 dev eth0", "ip addr add 172.31.1.241/24 dev eth0",
		"ip link add other type veth peer name other2", "ip link set other up", "ip link set other2 up",
		"ip addr add 203.0.113.1/24 dev other", "ip route replace default via 203.0.113.2 dev other",
		"ip route add 198.51.100.0/24 via 172.31.1.12 dev eth0",
		"ip addr del 172.31.1.240/32 dev eth0", "ip addr del 172.31.1.241/24 dev eth0",
		"ip link del other",
	} {
		onHost(t, h, command)
	}
	onHost(t, h, place(t, "ip route del SUBNET", l.Hosts[1]))
	connected(t, l)
	want := strings.Replace(before, `operation="put",table="routes"} 1`, `operation="put",table="routes"} 2`, 1)
	if got := writes(t, h); got != want {
		t.Errorf("writes before:\n%s\nafter:\n%s\nlog:\n%s", before, got, strings.TrimPrefix(h.Log(), log))
	}
}

func TestTheUplinksMTUIsFollowed(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual})
	up(t, l)
	h := l.Hosts[0]
	onHost(t, h, "ip link set eth0 mtu 1400")
	eventually.Says(t, func() (string, bool) {
		e := envOf(t, h)
		text := fmt.Sprintf("FLANNEL_MTU=%d\n", e.MTU) + onHost(t, h, "ip link show type vxlan")
		return text, e.MTU == 1330 && strings.Contains(text, "mtu 1350") && strings.Contains(text, "mtu 1330")
	})
	connected(t, l)
}

// TestAGapInTheUplinksAddressMovesNothing has beside the addresses in use a
// virtual one in each family, a link-local one, and another interface with a
// default route.
func TestAGapInTheUplinksAddressMovesNothing(t *testing.T) {
	for name, backend := range map[string]string{
		"vxlan": `{"Type": "vxlan"}`, "host-gw": `{"Type": "host-gw"}`, "udp": `{"Type": "udp"}`,
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual, Backend: backend})
			up(t, l)
			h := l.Hosts[0]
			for _, command := range []string{
				"ip addr add 172.31.1.240/32 dev eth0", "ip addr add fd00:31:0:1::240/128 dev eth0 nodad",
				"ip link add other type veth peer name other2", "ip link set other up", "ip link set other2 up",
				"ip addr add 203.0.113.1/24 dev other", "ip addr add 2001:db8::1/64 dev other nodad",
				"ip route add default dev other metric 5000", "ip -6 route add default dev other metric 5000",
			} {
				onHost(t, h, command)
			}
			before := leases(t, l)
			removed := func(f ipfam.Family, bits string) string {
				onHost(t, h, "ip addr del "+h.Addr(f).String()+bits+" dev eth0")
				return "address " + h.Addr(f).String() + " of eth0 is gone"
			}
			for f, bits := range (ipfam.Pair[string]{"/24", "/64"}).Each() {
				missing := removed(f, bits)
				eventually.Says(t, func() (string, bool) { return h.Log(), strings.Contains(h.Log(), missing) })
				lab.Must(t, h.ConfigureUplink())
				ready(t, h)
				connected(t, l)
			}
			if strings.Contains(h.Log(), "uplink changed") {
				t.Errorf("the uplink has moved:\n%s", h.Log())
			}

			t.Log("a global IPv6 address that comes after the start")
			lab.Must(t, h.Stop())
			removed(ipfam.V6, "/64")
			onHost(t, h, "ip addr del 172.31.1.240/32 dev eth0")
			onHost(t, h, "ip addr del fd00:31:0:1::240/128 dev eth0")
			lab.Must(t, h.StartFlanneld())
			eventually.Says(t, func() (string, bool) {
				return h.Log(), strings.Contains(h.Log(), "only link-local ipv6 addresses")
			})
			lab.Must(t, h.ConfigureUplink())
			ready(t, h)
			connected(t, l)
			if got := leases(t, l); !maps.Equal(got, before) {
				t.Errorf("records before:\n%v\nafter:\n%v", before, got)
			}
		})
	}
}

func TestAPublicAddressThatIsNotTheUplinks(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	// Packets to the public address reach the host because it also has it.
	onHost(t, l.Hosts[0], "ip addr add 172.31.1.210/32 dev lo")
	l.Hosts[0].Flags = []string{"--public-ip=172.31.1.210"}
	up(t, l)
	text := onHost(t, l.Hosts[1], "bridge fdb show dev flannel.1")
	if !strings.Contains(text, "dst 172.31.1.210 ") {
		t.Errorf("fdb %s", text)
	}
	if got := leases(t, l)[keyOf(t, l.Hosts[0])]; !strings.Contains(got, `"PublicIP":"172.31.1.210"`) {
		t.Errorf("record %s", got)
	}
	if link := onHost(t, l.Hosts[0], "ip -d link show flannel.1"); !strings.Contains(link, "local "+l.Hosts[0].Addr(ipfam.V4).String()) {
		t.Errorf("device %s", link)
	}
}

func TestAWrongConfigurationIsWaitedOut(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1, Network: `{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": "one"}}`})
	h := l.Hosts[0]
	lab.Must(t, h.StartFlanneld())
	eventually.Says(t, func() (string, bool) { return h.Log(), strings.Contains(h.Log(), `VNI: \"one\" is not allowed`) })
	if _, body, err := h.Flanneld().Get(t.Context(), "/readyz"); err != nil || !strings.Contains(body, `VNI: "one" is not allowed`) {
		t.Errorf("readyz %v:\n%s", err, body)
	}
	putConfig(t, l)
	ready(t, h)
	// A change while it runs is logged and has no effect.
	lab.Must(t, l.Etcd.Put(t.Context(), lab.DefaultPrefix+"/config", `{"Network": "10.9.0.0/16", "Backend": {"Type": "vxlan"}}`))
	if e := envOf(t, h); e.Network[ipfam.V4][0].String() != "10.244.0.0/16" {
		t.Errorf("network %v", e.Network)
	}
}

func TestDeviceOptions(t *testing.T) {
	l := newLab(t, lab.Options{
		Hosts: 2, Backend: `{"Type": "vxlan", "VNI": 42, "Port": 4789, "MTU": 1400, "GBP": true, "Learning": true, "ChecksumOffload": false}`,
	})
	up(t, l)
	h := l.Hosts[0]
	options := func() {
		eventually.Says(t, func() (string, bool) {
			link, _ := h.Exec(t.Context(), "ip", "-d", "link", "show", "flannel.42")
			features, _ := h.Exec(t.Context(), "ethtool", "-k", "flannel.42")
			ok := strings.Contains(features, "tx-checksumming: off")
			for _, want := range []string{"vxlan id 42", "dstport 4789", "mtu 1350", "gbp"} {
				ok = ok && strings.Contains(link, want)
			}
			return link + features, ok && !strings.Contains(link, "nolearning")
		})
	}
	options()
	onHost(t, h, "ip link del flannel.42")
	options()
	// A device that differs in what cannot be changed is replaced.
	lab.Must(t, h.Stop())
	onHost(t, h, "ip link del flannel.42")
	onHost(t, h, "ip link add flannel.42 type vxlan id 43 dstport 4789 dev eth0")
	lab.Must(t, h.StartFlanneld())
	ready(t, h)
	options()
	connected(t, l)
}
