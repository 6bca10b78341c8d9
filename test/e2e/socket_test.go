package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/socket"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

// ask asks the daemon of a host on its socket.
func ask(t *testing.T, h *lab.Host, path, page string) (body string, err error) {
	t.Helper()
	err = h.Do(func() error {
		_, raw, err := socket.Get(t.Context(), path, page)
		body = string(raw)
		return err
	})
	return body, err
}

func TestTheSocketAnswersFromTheStart(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1})
	h := l.Hosts[0]
	h.Flags = []string{"--etcd-prefix=/missing", "--healthz-port=0"}
	path := socket.Path(lab.DefaultSubnetFile)
	waits := func() {
		t.Helper()
		eventually.Says(t, func() (string, bool) {
			body, err := ask(t, h, path, "/readyz")
			return fmt.Sprint(body, err), strings.Contains(socket.Cause(body), "/missing/config does not exist")
		})
	}
	lab.Must(t, h.StartFlanneld())
	waits()

	second, err := h.StartDaemon(lab.DaemonOptions{
		Name: "second", Prefix: "/second", SubnetFile: "/run/flannel/second.env", HealthPort: 8082,
	})
	lab.Must(t, err)
	eventually.Says(t, func() (string, bool) {
		body, err := ask(t, h, "/run/flannel/second.sock", "/readyz")
		return fmt.Sprint(body, err), err == nil
	})
	lab.Must(t, second.Stop())
	lab.Must(t, h.Do(func() error {
		if _, err := os.Lstat("/run/flannel/second.sock"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want that the socket ends with its daemon", err)
		}
		return nil
	}))

	lab.Must(t, h.Kill())
	if body, err := ask(t, h, path, "/readyz"); !errors.Is(err, socket.ErrNoDaemon) {
		t.Errorf("a killed daemon: got %q, %v", body, err)
	}
	lab.Must(t, h.StartFlanneld())
	waits()
}

func TestStatusOfANode(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	up(t, l)
	h, peer := l.Hosts[0], subnetOf(t, l.Hosts[1])[ipfam.V4]
	program := binaries(t).Flanneld
	text := onHost(t, h, program+" status")
	for _, want := range []string{"daemon      ready\n", "uplink      eth0, 172.31.1.11", "found by --iface=eth0", peer.String() + "   172.31.1.12   tunnel"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	way := onHost(t, h, program+" status "+peer.Addr().Next().String())
	for _, step := range []string{"lease", "route", "device", "neighbor", "FDB entry", "rules", "underlay", "answer"} {
		if !strings.Contains(way, "ok   "+step) {
			t.Errorf("step %s is not ok in\n%s", step, way)
		}
	}
	if page := page(t, h, "/"); !strings.Contains(page, "<td data-label=\"subnet\">"+peer.String()+"</td>") || !strings.Contains(page, "FDB entry</span>") {
		t.Errorf("no peer, or no way to it, in\n%s", page)
	}
	onHost(t, h, "ip route add "+peer.Addr().Next().String()+" via 172.31.1.99 dev eth0")
	way = onHost(t, h, program+" status "+peer.Addr().Next().String())
	if want := "!!   route"; !strings.Contains(way, want) || !strings.Contains(way, "# ip route del "+peer.Addr().Next().String()) {
		t.Errorf("a stale route is not named in\n%s", way)
	}

	lab.Must(t, h.Stop())
	text, err := h.Exec(t.Context(), program, "status")
	if err == nil || !strings.Contains(text+err.Error(), "none answers on /run/flannel/subnet.sock") || !strings.Contains(text+err.Error(), peer.String()) {
		t.Errorf("without a daemon: %v\n%s", err, text)
	}
}
