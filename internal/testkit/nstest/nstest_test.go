package nstest_test

import (
	"os"
	"strings"
	"testing"

	"flannel/internal/testkit/nstest"
)

func TestNamespacesAreApart(t *testing.T) {
	a, b := nstest.New(t), nstest.New(t)
	a.AddUplink("eth0", "192.0.2.1/24", "2001:db8::1/64")
	if !a.HasLink("eth0") || b.HasLink("eth0") {
		t.Error("eth0 must exist in the first namespace only")
	}
	host, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var inside string
	a.Do(func() { inside, _ = os.Readlink("/proc/thread-self/ns/net") })
	if inside == "" || inside == host {
		t.Errorf("Do ran in namespace %q, the host's is %q", inside, host)
	}
}

func TestDumpReadsLikeTheIPTool(t *testing.T) {
	ns := nstest.New(t)
	ns.AddUplink("eth0", "192.0.2.1/24", "2001:db8::1/64")
	ns.IP("route add 198.51.100.0/24 via 192.0.2.2")
	ns.IP("link add vx0 address 02:00:00:00:00:01 type vxlan id 7 dstport 8472 nolearning local 192.0.2.1 dev eth0")
	ns.IP("link set vx0 up")
	ns.IP("neigh add 192.0.2.9 dev eth0 lladdr 02:00:00:00:00:09 nud permanent")
	ns.Bridge("fdb add 02:00:00:00:00:02 dev vx0 dst 192.0.2.2 self permanent")
	got := ns.Dump()
	for _, want := range []string{
		"link vx0 vxlan mtu 1450 up address 02:00:00:00:00:01 id 7 local 192.0.2.1 link eth0 port 8472 learning false\n",
		"addr 192.0.2.1/24 dev eth0\n",
		"addr 2001:db8::1/64 dev eth0\n",
		"fdb 02:00:00:00:00:02 dev vx0 dst 192.0.2.2 self permanent\n",
		"neigh 192.0.2.9 dev eth0 lladdr 02:00:00:00:00:09 PERMANENT\n",
		"route 198.51.100.0/24 via 192.0.2.2 dev eth0\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("dump lacks %q:\n%s", want, got)
		}
	}
}
