package lab

import (
	"errors"
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
	b, err := servers()
	if err != nil {
		return b, err
	}
	dir, err := Build(flags, "flannel/cmd/flanneld")
	b.Flanneld = filepath.Join(dir, "flanneld")
	return b, err
}

// Build builds programs with these flags of go build, into a folder that
// vanishes with the sandbox.
func Build(flags []string, packages ...string) (dir string, err error) {
	if dir, err = os.MkdirTemp(sandbox.Dir(), "bin-"); err != nil {
		return "", err
	}
	args := append([]string{"build", "-buildvcs=false", "-o", dir + "/"}, flags...)
	out, err := exec.Command("go", append(args, packages...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build %v: %w: %s", packages, err, out)
	}
	return dir, nil
}

// servers finds the programs that are built from elsewhere.
func servers() (Binaries, error) {
	var b Binaries
	var errs []error
	for name, path := range b.servers() {
		found, err := assets.Path(name)
		*path = found
		errs = append(errs, err)
	}
	return b, errors.Join(errs...)
}

// servers returns where the programs go, by their names.
func (b *Binaries) servers() map[string]*string {
	return map[string]*string{
		"etcd": &b.Etcd, "etcdutl": &b.Etcdutl,
		"kube-apiserver": &b.APIServer, "kube-controller-manager": &b.ControllerManager, "kube-scheduler": &b.Scheduler,
		"kubelet": &b.Kubelet, "kube-proxy": &b.KubeProxy, "kubectl": &b.Kubectl,
	}
}
