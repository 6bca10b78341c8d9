package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// newTree returns the groups of a lab, or skips without the rights.
func newTree(t *testing.T) *Tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("control groups need root")
	}
	tree, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// left counts the hierarchies that have groups of this name.
func left(t *testing.T, tree *Tree) int {
	t.Helper()
	n := 0
	for _, h := range tree.hierarchies {
		if _, err := os.Stat(filepath.Join(h, tree.name)); err == nil {
			n++
		}
	}
	return n
}

func TestRemoveEndsProcessesAndLeavesNothing(t *testing.T) {
	tree := newTree(t)
	if got, want := left(t, tree), len(tree.hierarchies); got != want {
		t.Errorf("groups in %d hierarchies, want %d", got, want)
	}
	if err := tree.Make("host1/system"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := tree.Add("host1/system", cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	if err := tree.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := <-ended; !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the process ended with %v", err)
	}
	if n := left(t, tree); n > 0 {
		t.Errorf("%d hierarchies still have %s", n, tree.name)
	}
}

func TestSweepTakesOnlyWhatNobodyHolds(t *testing.T) {
	alive, dead := newTree(t), newTree(t)
	defer alive.Remove(t.Context())
	if err := dead.Make("host1"); err != nil {
		t.Fatal(err)
	}
	dead.lock.Close()
	if err := Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if n := left(t, dead); n > 0 {
		t.Errorf("%d hierarchies still have groups that nobody holds", n)
	}
	if got, want := left(t, alive), len(alive.hierarchies); got != want {
		t.Errorf("groups that are held are in %d hierarchies, want %d", got, want)
	}
}
