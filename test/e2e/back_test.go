package e2e

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"flannel/internal/testkit/golden"
	"flannel/lab"
)

// TestWhatAReturningFlannelFinds dumps what this daemon leaves on a host and
// in etcd. flannel v0.28.9 takes it over when device attributes, the single
// address of the device, the key and the text of the record are as here.
func TestWhatAReturningFlannelFinds(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual})
	up(t, l)
	h := l.Hosts[0]
	lab.Must(t, h.Stop())
	var b strings.Builder
	for _, command := range []string{
		"ip -d link show flannel.1", "ip -d link show flannel-v6.1",
		"ip -o addr show dev flannel.1", "ip -o addr show dev flannel-v6.1",
		"ip route show dev flannel.1", "ip -6 route show dev flannel-v6.1",
		"ip neigh show dev flannel.1 nud permanent", "ip -6 neigh show dev flannel-v6.1 nud permanent",
		"bridge fdb show dev flannel.1", "bridge fdb show dev flannel-v6.1",
		"cat /run/flannel/subnet.env",
	} {
		lines := slices.Sorted(strings.Lines(anonymous(t, l, onHost(t, h, command))))
		b.WriteString("# " + command + "\n" + strings.Join(lines, "") + "\n")
	}
	b.WriteString("# etcd\n" + anonymous(t, l, keyOf(t, h)+"\n"+leases(t, l)[keyOf(t, h)]+"\n"))
	golden.Equal(t, b.String(), "testdata/left_behind.txt")
}

// anonymous replaces what differs from run to run.
func anonymous(t *testing.T, l *lab.Lab, text string) string {
	t.Helper()
	for i, h := range l.Hosts {
		name := string(rune('A' + i))
		for _, p := range subnetOf(t, h) {
			text = strings.ReplaceAll(text, strings.TrimSuffix(p.Addr().String(), "0"), "SUBNET-"+name+".")
		}
		link, err := h.Interface("flannel.1")
		lab.Must(t, err)
		text = strings.ReplaceAll(text, link.Attrs().HardwareAddr.String(), "MAC-"+name)
		link, err = h.Interface("flannel-v6.1")
		lab.Must(t, err)
		text = strings.ReplaceAll(text, link.Attrs().HardwareAddr.String(), "MAC6-"+name)
	}
	for pattern, by := range map[string]string{
		`(?m)^[0-9]+: `: "N: ",
		` (numtxqueues|numrxqueues|gso_max_size|gso_max_segs|tso_max_size|tso_max_segs|gro_max_size|gso_ipv4_max_size|gro_ipv4_max_size|minmtu|maxmtu) [0-9]+`: "",
		`[ \t]+\n`: "\n",
		// That of a route to an IPv4 subnet follows from the subnet.
		` proto 70 metric [0-9]{1,3} `: " proto 70 metric METRIC ",
	} {
		text = regexp.MustCompile(pattern).ReplaceAllString(text, by)
	}
	return text
}
