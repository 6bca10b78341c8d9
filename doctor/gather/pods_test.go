package gather

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flannel/internal/testkit/nstest"
	"flannel/kernel"
)

// TestPodsWithoutARoute has a host with a peer, and namespaces that are pods or not.
func TestPodsWithoutARoute(t *testing.T) {
	host := nstest.New(t)
	host.AddUplink("eth0", "192.0.2.1/24")
	host.AddBridge("cni0", "10.244.1.1/28")
	host.IP(fmt.Sprintf("route add 10.244.2.0/24 via 192.0.2.2 dev eth0 proto %d", kernel.RouteProtocol))
	o := hostOptions(t)
	dir := t.TempDir()
	o.Namespaces = []string{dir + "/none*", dir + "/cni-*"}
	add := func(name string, ns *nstest.NS) {
		t.Helper()
		ns.Do(func() {
			f, err := os.Open("/proc/thread-self/ns/net")
			if err == nil {
				t.Cleanup(func() { _ = f.Close() })
				err = os.Symlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), filepath.Join(dir, name))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	add("cni-host", host)
	fine, bare, other := nstest.New(t), nstest.New(t), nstest.New(t)
	for ns, addr := range map[*nstest.NS]string{fine: "10.244.1.2/28", bare: "10.244.1.3/28", other: "10.9.9.9/24"} {
		ns.AddVeth("eth0", "away")
		ns.AddAddr("eth0", addr)
	}
	fine.IP("route add default via 10.244.1.1")
	add("cni-fine", fine)
	add("cni-other", other)
	if err := os.WriteFile(dir+"/cni-file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := reportOf(t, host, o); strings.Contains(out, "pods: ") {
		t.Errorf("healthy pods: got\n%s", out)
	}
	add("cni-bare", bare)
	says := func(words string) {
		t.Helper()
		if out := reportOf(t, host, o); !strings.Contains(out, words) ||
			!strings.Contains(out, "Run: nsenter --net="+dir+"/cni-bare ip route replace 10.244.0.0/16 via 10.244.1.1 dev eth0\n") {
			t.Errorf("lacks %q\n%s", words, out)
		}
	}
	says("pods: the pod 10.244.1.3 has no route to pods of other nodes, such as 10.244.2.2: network is unreachable\n")
	bare.AddVeth("net1", "net1-away")
	bare.AddAddr("net1", "198.51.100.3/24")
	bare.IP("route add default via 198.51.100.1")
	says("pods: the pod 10.244.1.3 sends packets for pods of other nodes, such as 10.244.2.2, over net1 and not over eth0: 0.0.0.0/0 via 198.51.100.1 dev net1")
}
