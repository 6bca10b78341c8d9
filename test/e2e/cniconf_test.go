package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flannel/internal/install"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

const cniConf = `{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [{"type": "flannel"}]}`

// TestTheRuntimeSeesAConfigurationOnlyWhenTheNodeHasItsSubnet follows the file
// that makes a runtime take pods: first there is no subnet, but a file of before
// a reboot, then the file is wrong, then it is installed. It stays when the
// daemon is started again.
func TestTheRuntimeSeesAConfigurationOnlyWhenTheNodeHasItsSubnet(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1, NoConfig: true})
	h, dir := l.Hosts[0], t.TempDir()
	conf, installed := filepath.Join(dir, "conf"), filepath.Join(dir, "net.d", install.ConfName)
	lab.Must(t, os.WriteFile(conf, []byte(cniConf[:20]), 0o644))
	lab.Must(t, os.Mkdir(filepath.Dir(installed), 0o755))
	lab.Must(t, os.WriteFile(installed, []byte(cniConf), 0o644))
	h.Flags = []string{"--cni-conf=" + conf, "--cni-conf-dir=" + filepath.Dir(installed)}
	lab.Must(t, h.StartFlanneld())
	says := func(what string) {
		t.Helper()
		eventually.Says(t, func() (string, bool) {
			_, body, err := h.Flanneld().Get(t.Context(), "/readyz")
			return fmt.Sprint(body, err), strings.Contains(body, what)
		})
	}
	absent := func() {
		t.Helper()
		eventually.Says(t, func() (string, bool) {
			_, err := os.Stat(installed)
			return fmt.Sprintf("%v: want no configuration yet", err), errors.Is(err, fs.ErrNotExist)
		})
	}
	says("CNI configuration: not installed yet")
	absent()
	putConfig(t, l)
	says("CNI configuration: install the network configuration " + conf)
	absent()
	envOf(t, h)
	lab.Must(t, os.WriteFile(conf, []byte(cniConf), 0o644))
	ready(t, h)
	stays := func() {
		t.Helper()
		if text, err := os.ReadFile(installed); err != nil || string(text) != cniConf {
			t.Errorf("got %q, %v", text, err)
		}
	}
	stays()
	lab.Must(t, h.Stop())
	lab.Must(t, os.WriteFile(conf, []byte(cniConf[:20]), 0o644))
	lab.Must(t, h.StartFlanneld())
	says("CNI configuration: install the network configuration " + conf)
	stays()
}
