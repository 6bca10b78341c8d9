package kernel_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"flannel/internal/testkit/nstest"
	"flannel/kernel"
)

// Whoever can bind a socket keeps nobody from anything.
func TestASquatterHoldsNoInstance(t *testing.T) {
	ns := nstest.New(t)
	ns.AddUplink("eth0", "192.0.2.1/24", "2001:db8::1/64")
	dir := filepath.Join(t.TempDir(), "flannel", "lock")
	ns.Do(func() {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: kernel.SocketName("other")}); err != nil {
			t.Error(err)
		}
		lock, err := kernel.LockInstance(dir, "other")
		if err != nil {
			t.Error(err)
			return
		}
		if err := lock.Announce(); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("got %v, want EADDRINUSE", err)
		}
		if err := lock.Close(); err != nil {
			t.Error(err)
		}
	})
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	// The device of an instance whose lock is free is taken over.
	up := ns.Index("eth0")
	gone := open(t, ns, kernel.Options{Scope: kernel.Scope{Instance: "other"}, LockDir: dir})
	apply(t, gone, single(up))
	apply(t, open(t, ns, kernel.Options{Scope: kernel.Scope{Instance: "one"}, LockDir: dir}), single(up))
}

func TestNamespacesMayShareTheFolderOfLocks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lock")
	for range 2 {
		nstest.New(t).Do(func() {
			lock, err := kernel.LockInstance(dir, "one")
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = lock.Close() })
			if err := lock.Announce(); err != nil {
				t.Error(err)
			}
		})
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := kernel.LockInstance(dir, "two"); err == nil {
		t.Error("a lock in a folder that others can reach")
	}
}
