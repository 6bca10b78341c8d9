package doctor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

func TestHealthyHosts(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    lab.Options
		// flannel is set if one of the hosts runs flannel.
		flannel bool
		// passes is set if packets of pods pass the daemon.
		passes bool
	}{
		{name: "vxlan", o: lab.Options{Hosts: 3}},
		{name: "vxlan, both families", o: lab.Options{Hosts: 4, Families: lab.Dual}, flannel: true},
		{name: "vxlan on demand", o: lab.Options{Hosts: 3, Backend: `{"Type": "vxlan", "OnDemand": true}`}},
		{name: "vxlan, direct", o: lab.Options{Hosts: 3, Links: 2, Backend: `{"Type": "vxlan", "DirectRouting": true}`}},
		{name: "host-gw", o: lab.Options{Hosts: 4, Families: lab.Dual, Backend: `{"Type": "host-gw"}`}, flannel: true},
		{name: "udp", o: lab.Options{Hosts: 3, Backend: `{"Type": "udp"}`}, passes: true},
		{name: "alloc", o: lab.Options{Hosts: 2, Backend: `{"Type": "alloc"}`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var l *lab.Lab
			if tt.flannel {
				l = withFlannel(t, tt.o)
			} else {
				l = newLab(t, tt.o)
			}
			ours := l.Hosts
			if tt.flannel {
				ours = ours[:len(ours)-1]
			}
			for _, h := range ours {
				nothingFound(t, h)
			}
			for i, h := range ours {
				var others []*lab.Host
				if !tt.passes {
					others = append(append(others, ours[:i]...), ours[i+1:]...)
				}
				restart(t, h, others)
				nothingFound(t, h)
			}
		})
	}
}

// nothingFound examines a host once: what is wrong for a moment only is a false
// alarm.
func nothingFound(t *testing.T, h *lab.Host) {
	t.Helper()
	if out, code := examine(t, h, "-v"); code != 0 || !strings.Contains(out, "nothing found") {
		t.Errorf("%s: exit code %d\n%s", h.Name, code, out)
	}
}

// restart replaces the daemon of one host, and examines others until that is over.
func restart(t *testing.T, h *lab.Host, others []*lab.Host) {
	t.Helper()
	lab.Must(t, h.Stop())
	for _, o := range others {
		nothingFound(t, o)
	}
	lab.Must(t, h.StartFlanneld())
	ready := make(chan error, 1)
	go func() { ready <- h.WaitReady(lab.Limited(t, time.Minute)) }()
	for {
		for _, o := range others {
			nothingFound(t, o)
		}
		select {
		case err := <-ready:
			lab.Must(t, err)
			return
		default:
		}
		if len(others) == 0 {
			lab.Must(t, <-ready)
			return
		}
	}
}

// The subnets of the host that runs flannel: hosts of the lab have none like them.
var flannelsSubnets = ipfam.Pair[string]{"10.244.201.0", "fd00:10:244:c9::"}

// withFlannel returns a lab of both families whose last host is as flannel v0.28.9
// leaves it: its record in etcd, its device, and an entry of each kind for each other
// host.
func withFlannel(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	var err error
	o.Binaries, err = built()
	lab.Must(t, err)
	l := lab.ForTest(t, o)
	last := len(l.Hosts) - 1
	ours, h := l.Hosts[:last], l.Hosts[last]
	for _, o := range ours {
		lab.Must(t, o.StartFlanneld())
	}
	for _, o := range ours {
		lab.Must(t, o.WaitReady(lab.Limited(t, time.Minute)))
		_, err := o.AddPod("pod1")
		lab.Must(t, err)
	}
	vxlan := !strings.Contains(o.Backend, "host-gw")
	value := fmt.Sprintf(`{"PublicIP":%q,"PublicIPv6":%q,"BackendType":"host-gw"}`, h.Addr(ipfam.V4), h.Addr(ipfam.V6))
	mtu := 1500
	if vxlan {
		mtu = 1450
		value = fmt.Sprintf(`{"PublicIP":%q,"PublicIPv6":%q,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:04:01"},`+
			`"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:06:01"}}`, h.Addr(ipfam.V4), h.Addr(ipfam.V6))
		for f, dev := range vxlanTunnel.devices.Each() {
			sh(t, h, fmt.Sprintf("ip link add %[1]s address 02:00:00:00:0%[2]d:01 mtu 1450 type vxlan id 1 local %[3]s dev eth0 dstport 8472 nolearning; "+
				"ip address add %[4]s/%[5]d dev %[1]s; ip link set %[1]s up", dev, 4+2*f, h.Addr(f), flannelsSubnets[f], f.Bits()))
		}
	}
	for _, o := range ours {
		subnets, err := o.Subnet()
		lab.Must(t, err)
		for f, s := range ipfam.Prefixes(subnets) {
			dev := vxlanTunnel.devices[f]
			if !vxlan {
				sh(t, h, fmt.Sprintf("ip route add %s via %s dev eth0", s, o.Addr(f)))
				continue
			}
			link, err := o.Interface(dev)
			lab.Must(t, err)
			sh(t, h, fmt.Sprintf("ip neigh add %[1]s dev %[2]s lladdr %[3]s nud permanent; bridge fdb add %[3]s dev %[2]s dst %[4]s; ip route add %[5]s via %[1]s dev %[2]s onlink",
				s.Addr(), dev, link.Attrs().HardwareAddr, o.Addr(f), s))
		}
	}
	sh(t, h, fmt.Sprintf(`mkdir -p /run/flannel; printf '%%s\n' FLANNEL_NETWORK=10.244.0.0/16 FLANNEL_SUBNET=10.244.201.1/24 \
		FLANNEL_IPV6_NETWORK=fd00:10:244::/48 FLANNEL_IPV6_SUBNET=fd00:10:244:c9::1/64 FLANNEL_MTU=%d FLANNEL_IPMASQ=true >/run/flannel/subnet.env`, mtu))
	_, err = h.AddPod("pod1")
	lab.Must(t, err)
	lab.Must(t, l.Etcd.PutLeased(t.Context(), lab.DefaultPrefix+"/subnets/10.244.201.0-24&fd00:10:244:c9::-64", value))
	lab.Must(t, l.WaitConnected(lab.Limited(t, time.Minute)))
	for _, o := range ours {
		eventually.Says(t, func() (string, bool) {
			_, text, err := o.Flanneld().Get(t.Context(), "/status")
			return fmt.Sprint(text, err), strings.Count(text, `"verdict": "fine"`) == 2*last
		})
	}
	return l
}

// TestManyPeersOfWhichFewAnswer: most of a large network may drop echo requests.
func TestManyPeersOfWhichFewAnswer(t *testing.T) {
	const peers, answer = 5000, 200
	b, err := built()
	lab.Must(t, err)
	l := lab.ForTest(t, lab.Options{Hosts: 2, Binaries: b, Network: `{"Network": "10.0.0.0/8", "SubnetMin": "10.200.0.0", "Backend": {"Type": "vxlan"}}`})
	h, others := l.Hosts[0], l.Hosts[1]
	var group errgroup.Group
	group.SetLimit(16)
	for n := range peers {
		third, fourth := 1+n/answer, n%answer
		group.Go(func() error {
			return l.Etcd.Put(t.Context(), fmt.Sprintf("%s/subnets/10.%d.%d.0-24", lab.DefaultPrefix, third, fourth), fmt.Sprintf(
				`{"PublicIP":"172.30.%[1]d.%[2]d","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:%02[1]x:%02[2]x"}}`, third, fourth))
		})
	}
	lab.Must(t, group.Wait())
	sh(t, h, "ip route add 172.30.0.0/16 via "+others.Addr(ipfam.V4).String())
	lab.Must(t, h.StartFlanneld())
	lab.Must(t, h.WaitReady(lab.Limited(t, time.Minute)))
	_, err = h.AddPod("pod1")
	lab.Must(t, err)
	ours, err := h.Subnet()
	lab.Must(t, err)
	device, err := h.Interface("flannel.1")
	lab.Must(t, err)

	// One device answers for all whose packets come here, whatever their MAC.
	sh(t, others, fmt.Sprintf(`ip link add flannel.1 mtu 1450 type vxlan id 1 dev eth0 dstport 8472 nolearning
		ip link set flannel.1 up
		nft 'table netdev accept_all { chain in { type filter hook ingress device "flannel.1" priority 0; meta pkttype set host; }; }'
		for n in $(seq 0 %d); do
			echo "address add 10.1.$n.0/32 dev flannel.1"
			echo "address add 172.30.1.$n/32 dev eth0"
		done | ip -batch -
		ip route add 10.0.0.0/8 via %[2]s dev flannel.1 onlink
		ip neigh add %[2]s dev flannel.1 lladdr %[3]s nud permanent
		bridge fdb add %[3]s dev flannel.1 dst %[4]s`, answer-1, ours[ipfam.V4].Addr(), device.Attrs().HardwareAddr, h.Addr(ipfam.V4)))
	eventually.Says(t, func() (string, bool) {
		out, err := h.Exec(t.Context(), "ip", "route", "show", "proto", "70")
		lab.Must(t, err)
		n := strings.Count(out, "onlink")
		return fmt.Sprint(n, " routes"), n == peers
	})
	// Whoever is asked at random hardly answers.
	_, text, err := h.Flanneld().Post(t.Context(), "/probe?peer=10.1.7.0-24&peer=10.1.8.0-24")
	lab.Must(t, err)
	if n := strings.Count(text, `"verdict": "fine"`); n != 2 {
		t.Errorf("%d peers answer, want 2\n%s", n, text)
	}
	for range 3 {
		nothingFound(t, h)
	}
	_, text, err = h.Flanneld().Get(t.Context(), "/status")
	lab.Must(t, err)
	if fine, broken := strings.Count(text, `"verdict": "fine"`), strings.Count(text, `"verdict": "broken"`); fine < 2 || fine > answer || broken > 0 {
		t.Errorf("%d peers have answered, %d are broken", fine, broken)
	}
}
