package dist

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"flannel/lab"
)

const (
	unit       = "../../dist/flanneld.service"
	etcdDropIn = "../../dist/flanneld-etcd.conf"
)

// TestUnits has systemd read the unit, alone and with the etcd flavour, and the
// daemon its flags.
func TestUnits(t *testing.T) {
	b, err := built()
	lab.Must(t, err)
	for name, dropIn := range map[string]string{"Kubernetes": "", "etcd": etcdDropIn, "a mistake": "testdata/mistake.conf"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			// The program must be there.
			put := func(from, to string) string {
				text := strings.ReplaceAll(read(t, from), "/usr/local/bin/flanneld", b.Flanneld)
				lab.Must(t, install(filepath.Join(dir, to), text, 0o644))
				return text
			}
			text := put(unit, "flanneld.service")
			if dropIn != "" {
				text = put(dropIn, "flanneld.service.d/flavour.conf")
			}
			out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", filepath.Join(dir, "flanneld.service")).CombinedOutput()
			if good := err == nil && len(out) == 0; good != (name != "a mistake") {
				t.Errorf("%v\n%s", err, out)
			}
			for _, command := range commands(text) {
				if out, err := exec.CommandContext(t.Context(), command[0], append(command[1:], "--version")...).CombinedOutput(); err != nil {
					t.Errorf("%q: %v\n%s", command, err, out)
				}
			}
		})
	}
}

var execStart = regexp.MustCompile(`(?m)^ExecStart=(/[^\\\n]*(?:\\\n[^\\\n]*)*)`)

// commands returns what a unit starts.
func commands(text string) [][]string {
	var out [][]string
	for _, m := range execStart.FindAllStringSubmatch(text, -1) {
		out = append(out, strings.Fields(strings.ReplaceAll(m[1], "\\\n", " ")))
	}
	return out
}
