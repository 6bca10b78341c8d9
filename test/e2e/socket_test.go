package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

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
