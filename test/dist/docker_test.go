package dist

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flannel/lab"
)

const dockerDropIn = "../../dist/docker-flannel.conf"

// TestDockerDropIn has systemd read Debian's unit of Docker with our drop-in.
func TestDockerDropIn(t *testing.T) {
	dir := t.TempDir()
	script, err := filepath.Abs(mkDockerOpts)
	lab.Must(t, err)
	conf := strings.ReplaceAll(read(t, dockerDropIn), "/usr/local/libexec/flannel/mk-docker-opts.sh", script)
	for name, text := range map[string]string{
		"docker.service":                read(t, "/lib/systemd/system/docker.service"),
		"docker.service.d/flannel.conf": conf,
		"flanneld.service":              "[Service]\nExecStart=/bin/true\n",
	} {
		lab.Must(t, install(filepath.Join(dir, name), text, 0o644))
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", filepath.Join(dir, "docker.service")).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}
