package kernel_test

import (
	"os"
	"path/filepath"
	"testing"

	"flannel/internal/testkit/nstest"
	"flannel/kernel"
)

func TestNamespacesMayShareTheFolderOfLocks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "flannel", "lock")
	var locks []*kernel.InstanceLock
	for range 2 {
		nstest.New(t).Do(func() {
			lock, err := kernel.LockInstance(dir, "one")
			if err != nil {
				t.Error(err)
				return
			}
			locks = append(locks, lock)
		})
	}
	for _, lock := range locks {
		if err := lock.Close(); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestNoLockInAFolderThatOthersReach(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lock")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := kernel.LockInstance(dir, "one"); err == nil {
		t.Error("a lock in a folder that others can reach")
	}
}
