package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"flannel/internal/testkit/assets"
	"flannel/lab/sandbox"
)

// BuildBinaries builds flanneld with these flags of go build, into a folder
// that vanishes with the sandbox, and finds the servers that `make assets` has
// built. Tests call it once.
func BuildBinaries(flags ...string) (Binaries, error) {
	b, err := Servers()
	if err != nil {
		return b, err
	}
	dir, err := build(nil, flags, "flannel/cmd/flanneld")
	b.Flanneld = filepath.Join(dir, "flanneld")
	return b, err
}

// BuildPrograms builds what goes into the images of a lab, with the program that
// makes these, into a folder that vanishes with the sandbox.
func BuildPrograms() (p Programs, err error) {
	dir, err := BuildStatic("flannel/cmd/flanneld", "flannel/cmd/flannel", "flannel/lab/testpod")
	if err != nil {
		return p, err
	}
	p.Flanneld, p.Plugin, p.Testpod = filepath.Join(dir, "flanneld"), filepath.Join(dir, "flannel"), filepath.Join(dir, "testpod")
	p.Pack, err = BuildPack(dir)
	return p, err
}

// BuildPack builds the program of dist/pack, which is a module of its own, into
// a folder.
func BuildPack(dir string) (path string, err error) {
	root, err := assets.Root()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "pack"), buildInto(dir, []string{"CGO_ENABLED=0"}, []string{"-C", filepath.Join(root, "dist/pack"), "-trimpath"}, ".")
}

// BuildStatic builds programs that need no libraries, into a folder that
// vanishes with the sandbox.
func BuildStatic(packages ...string) (dir string, err error) {
	return build([]string{"CGO_ENABLED=0"}, []string{"-trimpath", "-tags=grpcnotrace", "-ldflags=-s -w"}, packages...)
}

func build(env, flags []string, packages ...string) (dir string, err error) {
	if dir, err = os.MkdirTemp(sandbox.Dir(), "bin-"); err != nil {
		return "", err
	}
	return dir, buildInto(dir, env, flags, packages...)
}

func buildInto(dir string, env, flags []string, packages ...string) error {
	// The flags come first: -C has to.
	args := append([]string{"build"}, flags...)
	args = append(args, "-buildvcs=false", "-o", dir+"/")
	cmd := exec.Command("go", append(args, packages...)...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("build %v: %w: %s", packages, err, out)
	}
	return nil
}

// Servers finds the programs that are built from elsewhere.
func Servers() (Binaries, error) {
	var b Binaries
	var errs []error
	wanted := b.Kubernetes()
	wanted["etcd"] = &b.Etcd
	for name, path := range wanted {
		found, err := assets.Path(name)
		*path = found
		errs = append(errs, err)
	}
	return b, errors.Join(errs...)
}

// Kubernetes returns where the programs of Kubernetes go, by their names.
func (b *Binaries) Kubernetes() map[string]*string {
	return map[string]*string{
		"kube-apiserver": &b.APIServer, "kube-controller-manager": &b.ControllerManager, "kube-scheduler": &b.Scheduler,
		"kubelet": &b.Kubelet, "kube-proxy": &b.KubeProxy, "kubectl": &b.Kubectl,
	}
}
