package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"flannel/internal/testkit/assets"
	"flannel/internal/testkit/kubeplane"
	"flannel/lab"
	"flannel/lab/sandbox"
)

// hosts is how many nodes a cluster has. The suite needs two.
const hosts = 2

// test makes a cluster, runs the tests that focus matches and skip does not, and
// returns what became of them. A test that fails is no error.
func (r run) test(ctx context.Context, images []string, focus, skip string, procs int) (got result, err error) {
	binaries, err := lab.Servers()
	if err != nil {
		return nil, err
	}
	l, err := lab.New(ctx, lab.Options{
		Hosts: hosts, Families: r.families, Kubelets: true, DNS: true, Binaries: binaries, Images: images,
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := r.install(ctx, l.Kubernetes); err != nil {
		return nil, err
	}
	return suite(ctx, l.Kubernetes, focus, skip, procs)
}

// install applies the manifest and waits until pods can be reached by name.
func (r run) install(ctx context.Context, k *lab.Kubernetes) error {
	root, err := assets.Root()
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"apply", "--kustomize=" + filepath.Join(root, "Documentation/kustomization", r.variant)},
		{"wait", "nodes", "--all", "--for=condition=Ready", "--timeout=4m"},
		{"rollout", "status", "--namespace=kube-system", "deployment/coredns", "--timeout=4m"},
	} {
		if _, err := k.Kubectl(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// suite runs tests from the machine of the control plane.
func suite(ctx context.Context, k *lab.Kubernetes, focus, skip string, procs int) (result, error) {
	ginkgo, err := assets.Path("ginkgo")
	if err != nil {
		return nil, err
	}
	program, err := assets.Path("e2e.test")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(sandbox.Dir(), "suite-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// Beside no go.mod, which ginkgo would take for the program's.
	link := filepath.Join(dir, filepath.Base(program))
	if err := os.Symlink(program, link); err != nil {
		return nil, err
	}
	const report = "junit.xml"
	cmd, err := k.Node.Start(ctx, []string{
		ginkgo, "--silence-skips", "--no-color", "--timeout=2h", fmt.Sprintf("--procs=%d", procs),
		"--focus=" + focus, "--skip=" + skip, "--junit-report=" + report, "--output-dir=" + dir, link, "--",
		"--provider=skeleton", "--kubeconfig=" + k.Plane.Kubeconfig(kubeplane.Admin), "--kubectl-path=" + k.KubectlPath(),
		fmt.Sprintf("--num-nodes=%d", hosts), "--disable-log-dump",
	}, func(cmd *exec.Cmd) error {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		return nil
	})
	if err != nil {
		return nil, err
	}
	ended := cmd.Wait()
	if ctx.Err() != nil {
		return nil, errors.New("interrupted")
	}
	raw, err := os.ReadFile(filepath.Join(dir, report))
	if err != nil {
		return nil, errors.Join(err, ended)
	}
	return parseResult(raw, focus, ended)
}
