package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

// says waits for a report with all these words and an exit code.
func says(t *testing.T, h *lab.Host, code int, words ...string) {
	t.Helper()
	eventually.Says(t, func() (string, bool) {
		out, got := examine(t, h, "-v")
		for _, w := range words {
			if !strings.Contains(out, w) {
				return fmt.Sprintf("lacks %q\n%s", w, out), false
			}
		}
		return out, got == code
	})
}

func TestRecordsOfTwoNodesThatHaveTheSame(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	h, other := l.Hosts[0], l.Hosts[1]
	device, err := other.Interface("flannel.1")
	lab.Must(t, err)
	mac := device.Attrs().HardwareAddr.String()
	subnets, err := other.Subnet()
	lab.Must(t, err)
	network := subnets[0].Masked()
	name := strings.ReplaceAll(network.String(), "/", "-") // of its lease
	put := func(subnet, public, mac string) {
		t.Helper()
		key := lab.DefaultPrefix + "/subnets/" + strings.ReplaceAll(subnet, "/", "-")
		value := fmt.Sprintf(`{"PublicIP": %q, "BackendType": "vxlan", "BackendData": {"VNI": 1, "VtepMAC": %q}}`, public, mac)
		lab.Must(t, l.Etcd.PutLeased(t.Context(), key, value))
		t.Cleanup(func() { _ = l.Etcd.Delete(context.WithoutCancel(t.Context()), key) })
	}
	put("10.244.200.0/24", other.Addr(0).String(), "02:00:00:00:00:c8")
	says(t, h, 1, "peers: 10.244.200.0/24 (", "public address 172.31.1.12 is that of "+name+" too\n", "then correct --public-ip")
	put("10.244.201.0/24", "192.0.2.201", mac)
	says(t, h, 1, "peers: 10.244.201.0/24 (", "VtepMAC "+mac+" belongs to the older lease "+name+"\n")
	inside := strings.Replace(network.String(), "/24", "/25", 1)
	put(inside, "192.0.2.202", "02:00:00:00:00:ca")
	says(t, h, 1, "subnet "+inside+" overlaps "+network.String()+" of the older lease "+name+"\n", "delete the record of the node that has the wrong subnet")
}

func TestAStoreThatIsGone(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1})
	healthy(t, l.Hosts[0])
	lab.Must(t, l.Etcd.Stop())
	says(t, l.Hosts[0], 1, "daemon: store: cannot be reached", "Note: store: etcd at http://172.31.1.2:2379 does not answer: dial tcp 172.31.1.2:2379: connect: connection refused\n")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lab.Must(t, l.Etcd.Start(ctx))
	healthy(t, l.Hosts[0])
}

func TestAPublicAddressThatNobodyReaches(t *testing.T) {
	b, err := built()
	lab.Must(t, err)
	l := lab.ForTest(t, lab.Options{Hosts: 2, Binaries: b})
	h := l.Hosts[0]
	sh(t, h, "ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up")
	h.Flags = append(h.Flags, "--public-ip=172.17.0.1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lab.Must(t, l.Up(ctx))
	says(t, h, 1, "public-address: the public address 172.17.0.1 is on docker0, which other nodes do not reach\n", "Run: set --iface or --public-ip")
	says(t, l.Hosts[1], 1, "overlay: ", " at 172.17.0.1 (", "its public address is 172.31.1.12, that of the peer is 172.17.0.1\n")
}

func TestPreflightOnAHostThatRunsFlanneld(t *testing.T) {
	for _, backend := range []string{"vxlan", "udp"} {
		t.Run(backend, func(t *testing.T) {
			object := fmt.Sprintf(`{"Type": %q}`, backend)
			h := newLab(t, lab.Options{Hosts: 1, Backend: object}).Hosts[0]
			file := filepath.Join(t.TempDir(), "net-conf.json")
			lab.Must(t, os.WriteFile(file, []byte(`{"Network": "10.244.0.0/16", "Backend": `+object+`}`), 0o600))
			out, code := examine(t, h, "--preflight", "-config", file)
			if code != 0 || !strings.Contains(out, "nothing found in 7 checks") {
				t.Errorf("exit code %d\n%s", code, out)
			}
			sh(t, h, "ip link add cilium_vxlan type vxlan external dstport 4789; ip link set cilium_vxlan up")
			lab.Must(t, os.WriteFile(file, []byte(`{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "Port": 4789}}`), 0o600))
			out, code = examine(t, h, "--preflight", "-config", file)
			if code != 1 || !strings.Contains(out, "port: device cilium_vxlan has UDP port 4789 and does not share it") {
				t.Errorf("exit code %d\n%s", code, out)
			}
		})
	}
}

func TestAgainstTheNode(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1, Kubernetes: true})
	h := l.Hosts[0]
	address := func(text string) {
		t.Helper()
		patch := map[string]any{"status": map[string]any{"addresses": []any{map[string]string{"type": "InternalIP", "address": text}}}}
		_, err := l.Kubernetes.API.Do(t.Context(), "PATCH", "/api/v1/nodes/"+h.Name+"/status", "application/merge-patch+json", patch)
		lab.Must(t, err)
	}
	address(h.Addr(0).String())
	healthy(t, h)
	if out, _ := examine(t, h, "-v"); strings.Contains(out, "InternalIP") || strings.Contains(out, " store: ") {
		t.Errorf("got\n%s", out)
	}
	bundle := filepath.Join(t.TempDir(), "bundle.tar.gz")
	examine(t, h, "-bundle", bundle)
	packed, err := exec.Command("tar", "-xzOf", bundle).CombinedOutput()
	lab.Must(t, err)
	for _, words := range []string{"--kube-subnet-mgr\n", `"Network": "10.244.0.0/16"`, `"backend": "vxlan"`} {
		if !strings.Contains(string(packed), words) {
			t.Errorf("the bundle lacks %q", words)
		}
	}
	address("192.0.2.99")
	says(t, h, 0, "Note: public-address: the public address is "+h.Addr(0).String()+", but the Node has the InternalIP 192.0.2.99\n")
	address(h.Addr(0).String())
	sh(t, h, "ip tuntap add tun0 mode tun; ip addr add 10.8.0.2/24 dev tun0; ip link set tun0 up")
	lab.Must(t, h.Stop())
	h.Flags = []string{"--public-ip=10.8.0.2"}
	lab.Must(t, h.StartFlanneld())
	// A flag chose it.
	says(t, h, 0, "Note: public-address: the public address 10.8.0.2 is on tun0, a VPN, but the Node's InternalIP "+h.Addr(0).String()+" is on eth0\n",
		"Run: add --iface-can-reach=ADDRESS to the arguments of flanneld on all nodes, ")
	lab.Must(t, l.Kubernetes.KillAPIServer())
	says(t, h, 1, "daemon: store: ", "cannot be reached", "Note: store: the API server at https://172.31.1.3:6443 does not answer: dial tcp 172.31.1.3:6443: connect: connection refused\n")
}
