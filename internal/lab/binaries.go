package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"flannel/internal/assets"
	"flannel/internal/lab/sandbox"
)

// BuildBinaries builds flanneld with these flags of go build, into a folder
// that vanishes with the sandbox, and finds the servers that `make assets` has
// built. Tests call it once.
func BuildBinaries(flags ...string) (Binaries, error) {
	var b Binaries
	for name, path := range map[string]*string{"etcd": &b.Etcd, "etcdutl": &b.Etcdutl} {
		found, err := assets.Path(name)
		if err != nil {
			return b, err
		}
		*path = found
	}
	dir, err := os.MkdirTemp(sandbox.Dir(), "bin-")
	if err != nil {
		return b, err
	}
	b.Flanneld = filepath.Join(dir, "flanneld")
	args := append([]string{"build", "-buildvcs=false", "-o", b.Flanneld}, flags...)
	out, err := exec.Command("go", append(args, "flannel/cmd/flanneld")...).CombinedOutput()
	if err != nil {
		return b, fmt.Errorf("build flanneld: %w: %s", err, out)
	}
	return b, nil
}
