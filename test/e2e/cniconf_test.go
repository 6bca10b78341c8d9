package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flannel/internal/eventually"
	"flannel/internal/install"
	"flannel/internal/lab"
)

const cniConf = `{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [{"type": "flannel"}]}`

// TestTheRuntimeSeesAConfigurationOnlyWhenTheNodeHasItsSubnet follows the file
// that makes a runtime take pods: first there is no subnet, then the file is
// wrong, then it is installed.
func TestTheRuntimeSeesAConfigurationOnlyWhenTheNodeHasItsSubnet(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1, NoConfig: true})
	h, dir := l.Hosts[0], t.TempDir()
	conf, installed := filepath.Join(dir, "conf"), filepath.Join(dir, "net.d", install.ConfName)
	must(t, os.WriteFile(conf, []byte(cniConf[:20]), 0o644))
	h.Flags = []string{"--cni-conf=" + conf, "--cni-conf-dir=" + filepath.Dir(installed)}
	must(t, h.StartFlanneld())
	says := func(what string) {
		t.Helper()
		eventually.Says(t, func() (string, bool) {
			_, body, err := h.Flanneld().Get(t.Context(), "/readyz")
			return fmt.Sprint(body, err), strings.Contains(body, what)
		})
		if _, err := os.Stat(installed); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: want no configuration yet", err)
		}
	}
	says("CNI configuration: not installed yet")
	putConfig(t, l)
	says("CNI configuration: install the network configuration " + conf)
	envOf(t, h)
	must(t, os.WriteFile(conf, []byte(cniConf), 0o644))
	ready(t, h)
	if text, err := os.ReadFile(installed); err != nil || string(text) != cniConf {
		t.Errorf("got %q, %v", text, err)
	}
}
