package docker

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/lab"
	"flannel/lab/cgroup"
)

// TestContainersOfTwoHostsReachEachOther runs both ways of masquerading: by
// flanneld, and by Docker.
func TestContainersOfTwoHostsReachEachOther(t *testing.T) {
	p, err := built()
	lab.Must(t, err)
	lab.Must(t, cgroup.Sweep(t.Context()))
	for name, test := range map[string]struct {
		flags []string
		// kept means that a container sees the address of another host's.
		kept bool
	}{
		"flanneld masquerades": {[]string{"--ip-masq"}, true},
		"Docker masquerades":   {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			groups := newGroups(t)
			l := lab.ForTest(t, lab.Options{Hosts: 2, Binaries: p.Binaries, Flags: test.flags})
			var pods []container
			for _, h := range l.Hosts {
				lab.Must(t, h.StartFlanneld())
				lab.Must(t, h.WaitReady(limited(t)))
				e := startDocker(t, h, groups, "-nft")
				pods = append(pods, e.run("first"), e.run("second"))
				hasSubnet(t, h, pods[len(pods)-2:])
			}
			reachEachOther(t, pods)
			if source := sourceSeen(t, pods[0], pods[2]); (source == pods[0].addr) != test.kept {
				t.Errorf("%s is seen as %s", pods[0].addr, source)
			}
		})
	}
}

// hasSubnet looks at what Docker has made of the options.
func hasSubnet(t *testing.T, h *lab.Host, pods []container) {
	t.Helper()
	e, err := h.Env()
	lab.Must(t, err)
	for _, p := range pods {
		if s := e.Masked()[ipfam.V4]; !s.Contains(p.addr) {
			t.Errorf("%s has %s, which is outside of %s", p.Name, p.addr, s)
		}
		link, err := p.Handle.LinkByName("eth0")
		lab.Must(t, err)
		if got := link.Attrs().MTU; got != e.MTU {
			t.Errorf("%s has MTU %d, want %d", p.Name, got, e.MTU)
		}
	}
}

// reachEachOther sends packets of full size that must not be cut.
func reachEachOther(t *testing.T, pods []container) {
	t.Helper()
	const headers = 28 // IPv4 and ICMP
	for _, from := range pods {
		for _, to := range pods {
			if _, err := from.Exec(limited(t), "ping", "-c1", "-W5", "-M", "do", "-s", fmt.Sprint(1450-headers), to.addr.String()); err != nil {
				t.Error(err)
			}
		}
	}
}

// sourceSeen returns the address that a server in one container sees of a
// client in another.
func sourceSeen(t *testing.T, client, server container) netip.Addr {
	t.Helper()
	var l net.Listener
	lab.Must(t, server.Do(func() (err error) { l, err = net.Listen("tcp4", ":0"); return err }))
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		defer close(accepted)
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	var c net.Conn
	lab.Must(t, client.Do(func() (err error) {
		c, err = net.Dial("tcp4", netip.AddrPortFrom(server.addr, port).String())
		return err
	}))
	defer c.Close()
	peer := <-accepted
	defer peer.Close()
	return peer.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
}

// TestTheDropInIsWhatTheTestsDo keeps systemd's file and this test together.
func TestTheDropInIsWhatTheTestsDo(t *testing.T) {
	text, err := os.ReadFile("../../../dist/docker-flannel.conf")
	lab.Must(t, err)
	for _, want := range []string{"mk-docker-opts.sh -i", "/run/docker_opts.env", "$DOCKER_OPT_BIP $DOCKER_OPT_IPMASQ $DOCKER_OPT_MTU"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is missing in dist/docker-flannel.conf", want)
		}
	}
}
