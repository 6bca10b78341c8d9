// Package e2e tests whole clusters: real flanneld processes on hosts of the
// lab, a real etcd, and pods that ping each other.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"flannel/internal/assets"
	"flannel/internal/lab"
	"flannel/internal/lab/sandbox"
)

// flanneldVariable tells the tests inside the sandbox where the daemon is that
// was built outside of it.
const flanneldVariable = "FLANNEL_E2E_FLANNELD"

func TestMain(m *testing.M) {
	if sandbox.Active() {
		lab.Main(m)
	}
	remove, err := buildFlanneld()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	code, err := sandbox.Run(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
	remove()
	os.Exit(code)
}

// buildFlanneld builds the daemon with the race detector.
func buildFlanneld() (remove func(), err error) {
	dir, err := os.MkdirTemp("", "flannel-e2e-")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "flanneld")
	out, err := exec.Command("go", "build", "-race", "-o", path, "flannel/cmd/flanneld").CombinedOutput()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("build flanneld: %w\n%s", err, out), os.RemoveAll(dir))
	}
	return func() { os.RemoveAll(dir) }, os.Setenv(flanneldVariable, path)
}

// waitLimit bounds every wait: far more than anything takes.
const waitLimit = 20 * time.Second

// newLab returns a lab with the programs filled in.
func newLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	o.Binaries = binaries(t)
	return lab.ForTest(t, o)
}

func binaries(t *testing.T) lab.Binaries {
	t.Helper()
	asset := func(name string) string {
		path, err := assets.Path(name)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	return lab.Binaries{Flanneld: os.Getenv(flanneldVariable), Etcd: asset("etcd"), Etcdutl: asset("etcdutl")}
}

// up starts flanneld on every host, waits until all are ready, and until every
// pod reaches every other.
func up(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	if err := l.Up(ctx); err != nil {
		t.Fatal(err)
	}
	connected(t, l)
}

// connected waits until every pod reaches every other.
func connected(t *testing.T, l *lab.Lab) time.Duration {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	if err := l.WaitConnected(ctx); err != nil {
		t.Fatalf("%v\n%s", err, l.PingAll(t.Context()))
	}
	return time.Since(start)
}
