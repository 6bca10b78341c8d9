package lab

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"flannel/internal/testkit/kubeplane"
)

// Kubectl runs kubectl as a user who may do everything, and returns its
// standard output. The error carries its standard error.
func (k *Kubernetes) Kubectl(ctx context.Context, args ...string) (string, error) {
	return k.kubectl(ctx, "", args)
}

// Apply applies objects as kubectl does.
func (k *Kubernetes) Apply(ctx context.Context, objects string) error {
	_, err := k.kubectl(ctx, objects, []string{"apply", "--filename=-"})
	return err
}

func (k *Kubernetes) kubectl(ctx context.Context, input string, args []string) (string, error) {
	var stdout, stderr bytes.Buffer
	all := append([]string{k.lab.options.Binaries.Kubectl, "--kubeconfig=" + k.Plane.Kubeconfig(kubeplane.Admin)}, args...)
	cmd, err := k.Node.Start(ctx, all, func(cmd *exec.Cmd) error {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
		cmd.Env = append(cmd.Env, "KUBECACHEDIR="+filepath.Join(k.lab.dir, "kubectl"))
		return nil
	})
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// KubectlPath is the program that Kubectl runs.
func (k *Kubernetes) KubectlPath() string { return k.lab.options.Binaries.Kubectl }
