package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

func TestDualStack(t *testing.T) {
	tests := []struct{ name, delegates, cniVersion string }{
		{"0.3.1", debian, "0.3.1"}, {"0.4.0", debian, "0.4.0"}, {"1.0.0", debian, "1.0.0"},
		{"built 0.3.1", built(t), "0.3.1"}, {"built 1.1.0", built(t), "1.1.0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHostWith(t, test.delegates, test.cniVersion)
			h.writeSubnet(subnetDual)
			a, b := newPod(t, "a"), newPod(t, "b")
			h.mustAdd(a)
			addrs := h.mustAdd(b)
			if got, want := fmt.Sprint(addrs), "[10.244.17.3 fd00:10:244:3::3]"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			for _, addr := range addrs {
				a.IP("route get", addr.String())
				a.Tool("ping", "-c1 -W5", addr.String())
			}
			if got := b.IP("link show eth0"); !strings.Contains(got, "mtu 1450") {
				t.Errorf("got %s, want the MTU of subnet.env", got)
			}
			if got := b.IP("route show 10.244.0.0/16"); !strings.Contains(got, "via 10.244.17.1") {
				t.Errorf("got %q, want a route to the whole network", got)
			}
			want(t, "scratch", h.scratch(), "a", "b")
			h.mustDel(a)
			h.mustDel(b)
			want(t, "scratch", h.scratch())
			want(t, "reserved", h.reserved())
		})
	}
}

func TestOneFamilyWithEveryVersion(t *testing.T) {
	for _, cniVersion := range []string{"", "0.1.0", "0.2.0", "0.3.0"} {
		t.Run("version "+cniVersion, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, cniVersion)
			h.writeSubnet(subnetV4)
			p := newPod(t, "a")
			if got := fmt.Sprint(h.mustAdd(p)); got != "[10.244.17.2]" {
				t.Errorf("got %s", got)
			}
			h.mustDel(p)
		})
	}
}

func TestVersionsOfCNI(t *testing.T) {
	t.Parallel()
	info, err := newHost(t, "1.0.0").cni.GetVersionInfo(t.Context(), "flannel")
	if err != nil {
		t.Fatal(err)
	}
	want(t, "versions", info.SupportedVersions(), "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
}

// TestBesideLoopback attaches a pod as runtimes do: they call loopback first,
// as a network of its own.
func TestBesideLoopback(t *testing.T) { eachDelegates(t, besideLoopback) }

func besideLoopback(t *testing.T, delegates, cniVersion string) {
	h := newHostWith(t, delegates, cniVersion)
	h.writeSubnet(subnetV4)
	p := newPod(t, "a")
	lo, err := libcni.ConfListFromBytes([]byte(`{"name": "lo", "cniVersion": "` + cniVersion + `", "plugins": [{"type": "loopback"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	runtime := *p.runtime
	runtime.IfName = "lo"
	if _, err := h.cni.AddNetworkList(t.Context(), lo, &runtime); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(h.mustAdd(p)); got != "[10.244.17.2]" {
		t.Errorf("got %s", got)
	}
	p.Tool("ping", "-c1 -W5", "127.0.0.1")
	h.mustDel(p)
	if err := h.cni.DelNetworkList(t.Context(), lo, &runtime); err != nil {
		t.Error(err)
	}
	want(t, "scratch", h.scratch())
}

func TestScratchFilesAreThoseOfFlannel(t *testing.T) {
	t.Parallel()
	h := newHost(t, "0.3.1")
	h.writeSubnet(subnetV4)
	p := newPod(t, "a")
	h.mustAdd(p)
	// Either plugin may be asked to detach what the other has attached.
	path := filepath.Join(h.scratchDir(), "a")
	text := fmt.Sprintf(`{"cniVersion":"0.3.1","hairpinMode":true,"ipMasq":false,"ipam":{"dataDir":%q,"ranges":[[{"subnet":"10.244.17.0/24"}]],`+
		`"routes":[{"dst":"10.244.0.0/16"}],"type":"host-local"},"isDefaultGateway":true,"isGateway":true,"mtu":1450,"name":"cbr0","type":"bridge"}`,
		filepath.Join(h.dir, "networks"))
	ours, err := os.ReadFile(path)
	if err != nil || string(ours) != text {
		t.Errorf("got %s, %v, want what flannel writes: %s", ours, err, text)
	}
	h.mustDel(p)
	want(t, "reserved", h.reserved())
}

func TestPortsAreMapped(t *testing.T) {
	t.Run("Debian", func(t *testing.T) { t.Parallel(); portsAreMapped(t, debian, "0.3.1") })
	t.Run("built", func(t *testing.T) { t.Parallel(); portsAreMapped(t, built(t), "1.1.0") })
}

func portsAreMapped(t *testing.T, delegates, cniVersion string) {
	h := newHostWith(t, delegates, cniVersion, `{"type": "portmap", "capabilities": {"portMappings": true}}`)
	h.writeSubnet(subnetV4)
	h.AddUplink("eth0", "192.0.2.1/24")
	p := newPod(t, "a")
	p.runtime.CapabilityArgs = map[string]any{"portMappings": []map[string]any{
		{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
	}}
	h.mustAdd(p)
	serve(t, p, ":80")
	for _, addr := range []string{"192.0.2.1:8080", "10.244.17.1:8080"} {
		if got := read(t, h, addr); got != "hello" {
			t.Errorf("%s: got %q", addr, got)
		}
	}
	// A pod reaches itself through its port of the host: that is the hairpin.
	if got := read(t, p, "192.0.2.1:8080"); got != "hello" {
		t.Errorf("through the hairpin: got %q", got)
	}
	if got := h.Bridge("-d link show master cni0"); !strings.Contains(got, "hairpin on") {
		t.Errorf("got %s, want hairpin on", got)
	}
	h.mustDel(p)
}

// serve sends hello to everyone who connects.
func serve(t *testing.T, p *pod, addr string) {
	var l net.Listener
	var err error
	p.Do(func() { l, err = net.Listen("tcp4", addr) })
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
}

// read connects from inside a namespace.
func read(t *testing.T, from interface{ Do(func()) }, addr string) string {
	t.Helper()
	var text []byte
	var err error
	from.Do(func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp4", addr, 5*time.Second); err == nil {
			defer c.Close()
			text, err = io.ReadAll(c)
		}
	})
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

func TestTenAtOnce(t *testing.T) { eachDelegates(t, tenAtOnce) }

func tenAtOnce(t *testing.T, delegates, cniVersion string) {
	h := newHostWith(t, delegates, cniVersion)
	h.writeSubnet(subnetDual)
	const count = 10
	pods := make([]*pod, count)
	for i := range pods {
		pods[i] = newPod(t, fmt.Sprint("pod", i))
	}
	var mu sync.Mutex
	seen := map[netip.Addr]bool{}
	var group sync.WaitGroup
	for _, p := range pods {
		group.Go(func() {
			addrs, err := h.add(p)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			for _, a := range addrs {
				seen[a] = true
			}
		})
	}
	group.Wait()
	if len(seen) != 2*count {
		t.Errorf("got %d addresses, want %d", len(seen), 2*count)
	}
	for _, p := range pods {
		group.Go(func() {
			if err := h.cni.DelNetworkList(t.Context(), h.list(), p.runtime); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	want(t, "reserved", h.reserved())
	want(t, "scratch", h.scratch())
}

func TestAddWaitsForSubnetEnv(t *testing.T) {
	t.Parallel()
	h := newHost(t, "1.0.0")
	h.writeSubnet("FLANNEL_NETWORK=10.244.0.0/16\n")
	p := newPod(t, "a")
	added := make(chan error)
	go func() { _, err := h.add(p); added <- err }()
	select {
	case err := <-added:
		t.Fatalf("got %v, want it to wait", err)
	case <-time.After(200 * time.Millisecond):
	}
	h.writeSubnet(subnetV4)
	if err := <-added; err != nil {
		t.Error(err)
	}
	h.mustDel(p)
}

func TestDelTwiceAndDelOfTheUnknown(t *testing.T) { eachDelegates(t, delTwice) }

func delTwice(t *testing.T, delegates, cniVersion string) {
	h := newHostWith(t, delegates, cniVersion)
	h.writeSubnet(subnetV4)
	p := newPod(t, "a")
	h.mustDel(p)
	h.mustAdd(p)
	h.mustDel(p)
	h.mustDel(p)
	want(t, "reserved", h.reserved())
}

func TestDelAfterTheSubnetChanged(t *testing.T) { eachDelegates(t, delAfterChange) }

func delAfterChange(t *testing.T, delegates, cniVersion string) {
	h := newHostWith(t, delegates, cniVersion)
	h.writeSubnet(subnetV4)
	p := newPod(t, "a")
	h.mustAdd(p)
	want(t, "reserved", h.reserved(), "10.244.17.2")
	h.writeSubnet(strings.Replace(subnetV4, "10.244.17", "10.244.99", 1))
	h.mustDel(p)
	want(t, "reserved", h.reserved())
	if p.HasLink("eth0") {
		t.Error("the pod still has eth0")
	}
	// Also without subnet.env, and when the namespace is gone.
	h.mustAdd(p)
	if err := os.Remove(h.subnetFile()); err != nil {
		t.Fatal(err)
	}
	p.runtime.NetNS = ""
	h.mustDel(p)
	want(t, "reserved", h.reserved())
	want(t, "scratch", h.scratch())
}

func TestTheBridgeFollowsTheSubnet(t *testing.T) { eachDelegates(t, bridgeFollows) }

func bridgeFollows(t *testing.T, delegates, cniVersion string) {
	h := newHostWith(t, delegates, cniVersion)
	h.writeSubnet(subnetV4)
	a, b := newPod(t, "aaaaaaaaaaaaaaaa"), newPod(t, "b")
	h.mustAdd(a)
	h.writeSubnet(strings.Replace(subnetV4, "10.244.17", "10.244.99", 1))
	_, err := h.add(b)
	wantError(t, err, types.ErrInternal, "cni0 has 10.244.17.1/24 of a former subnet and is in use (10.244.17.2 container aaaaaaaaaaaa): delete these pods")
	h.mustDel(b)
	h.mustDel(a)
	if got := fmt.Sprint(h.mustAdd(b)); !strings.HasPrefix(got, "[10.244.99.") {
		t.Errorf("got %s", got)
	}
	if got := h.IP("-4 addr show dev cni0"); strings.Contains(got, "10.244.17") || !strings.Contains(got, "10.244.99.1/24") {
		t.Errorf("got %s, want the present address only", got)
	}
}

func TestDelOfAGarbledScratchFile(t *testing.T) {
	for name, text := range map[string]string{"half": `{"name": "cbr`, "empty, after a power cut": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, "1.0.0")
			h.writeSubnet(subnetV4)
			p := newPod(t, "a")
			h.mustAdd(p)
			h.leave("scratch/a", text)
			h.mustDel(p)
			want(t, "scratch", h.scratch())
			want(t, "reserved", h.reserved())
			h.leave("scratch/a", text)
			if err := os.Remove(h.subnetFile()); err != nil {
				t.Fatal(err)
			}
			h.mustDel(p)
			want(t, "scratch", h.scratch())
		})
	}
}

func TestKilledHalfWay(t *testing.T) { eachDelegates(t, killedHalfWay) }

func killedHalfWay(t *testing.T, delegates, cniVersion string) {
	bridge := delegates + "/bridge"
	tests := []struct{ name, before string }{
		{"before the delegate works", ""},
		{"after the delegate has worked", bridge + " >/dev/null"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := newHostWith(t, delegates, cniVersion)
			h.writeSubnet(subnetV4)
			h.script("bridge", `if [ "$CNI_COMMAND" = ADD ]; then
				`+test.before+`
				kill -9 $PPID
				exit
			fi
			exec `+bridge)
			p := newPod(t, "a")
			if _, err := h.add(p); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("got %v, want it killed", err)
			}
			want(t, "scratch", h.scratch(), "a")
			h.mustDel(p)
			want(t, "scratch", h.scratch())
			want(t, "reserved", h.reserved())
		})
	}
}

// TestADelegateThatFailsIsToldToDetach leaves nothing of an ADD that the
// delegate gave up after it had done its work.
func TestADelegateThatFailsIsToldToDetach(t *testing.T) { eachDelegates(t, failsAfterwards) }

func failsAfterwards(t *testing.T, delegates, cniVersion string) {
	h := newHostWith(t, delegates, cniVersion)
	h.writeSubnet(subnetV4)
	h.script("bridge", `if [ "$CNI_COMMAND" = ADD ]; then
		`+delegates+`/bridge >/dev/null
		echo '{"code": 100, "msg": "no more"}'
		exit 1
	fi
	exec `+delegates+`/bridge`)
	p := newPod(t, "a")
	_, err := h.add(p)
	wantError(t, err, 100, "delegate bridge: no more")
	want(t, "reserved", h.reserved())
	if p.HasLink("eth0") {
		t.Error("the pod still has eth0")
	}
	h.mustDel(p)
	want(t, "scratch", h.scratch())
}
