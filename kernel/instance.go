package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// LockDir is where the locks of the daemons of a host are, whatever their flags.
const LockDir = "/run/flannel/lock"

// ErrInstanceLocked means that another daemon runs as the same instance.
var ErrInstanceLocked = errors.New("another daemon on this host runs as the same instance")

// InstanceLock is what a daemon holds while it runs as an instance.
type InstanceLock struct{ file *os.File }

// LockInstance tells other daemons in this network namespace that the one with
// this Scope.Instance runs: its devices are left alone until the lock is closed
// or the process ends. The error wraps ErrInstanceLocked while another daemon
// holds the lock.
//
// The lock is on a file in a folder that only root can reach; dir is LockDir
// but for tests. Any user could bind an abstract socket instead of us.
func LockInstance(dir, instance string) (*InstanceLock, error) {
	file, err := takeLock(dir, instance)
	if err != nil {
		return nil, fmt.Errorf("lock instance %q: %w", instance, err)
	}
	return &InstanceLock{file}, nil
}

// Close releases the lock.
func (l *InstanceLock) Close() error {
	return errors.Join(os.Remove(l.file.Name()), l.file.Close())
}

// takeLock returns the locked file of an instance.
func takeLock(dir, instance string) (*os.File, error) {
	path, err := lockPath(dir, 0, instance)
	if err != nil {
		return nil, err
	}
	for {
		if err := makeLockDir(dir); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
				err = ErrInstanceLocked
			}
			return nil, err
		}
		// Whoever releases a lock removes the file first.
		if named, err := os.Lstat(path); err == nil {
			if opened, err := f.Stat(); err == nil && os.SameFile(opened, named) {
				return f, nil
			}
		}
		_ = f.Close()
	}
}

// makeLockDir makes the folder of the locks, or refuses one in which others can
// take them.
func makeLockDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	var stat unix.Stat_t
	if err := unix.Lstat(dir, &stat); err != nil {
		return &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR || int(stat.Uid) != os.Geteuid() || stat.Mode&0o077 != 0 {
		return fmt.Errorf("%s is not a folder that only user %d can reach: remove it", dir, os.Geteuid())
	}
	return nil
}

// lockPath names the file of an instance in a network namespace; 0 is the
// current one. Containers and the host may share the folder.
func lockPath(dir string, namespace int, instance string) (string, error) {
	var stat unix.Stat_t
	var err error
	if namespace > 0 {
		err = unix.Fstat(namespace, &stat)
	} else {
		err = unix.Stat("/proc/thread-self/ns/net", &stat)
	}
	if err != nil {
		return "", fmt.Errorf("look at the network namespace: %w", err)
	}
	sum := sha256.Sum256([]byte(shortName(instance)))
	return filepath.Join(dir, fmt.Sprintf("%d-%d-%s", stat.Dev, stat.Ino, hex.EncodeToString(sum[:8]))), nil
}

// alive reports whether a daemon in the namespace holds the lock of an
// instance. If that cannot be found out, it does.
func alive(dir string, namespace int, instance string) bool {
	path, err := lockPath(dir, namespace, instance)
	return err != nil || locked(path)
}

// locked reports whether a process holds the lock on a file. If that cannot be
// found out, it does.
func locked(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer func() { _ = f.Close() }()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock)
	return err != nil || lock.Type != unix.F_UNLCK
}

// AnyInstanceRuns reports whether a daemon of this software runs in the current
// network namespace, as far as its lock shows.
func AnyInstanceRuns(dir string) bool { return slices.ContainsFunc(locks(dir), locked) }

// FreeLocks returns the locks of daemons in the current network namespace that have
// ended without removing theirs.
func FreeLocks(dir string) []string { return slices.DeleteFunc(locks(dir), locked) }

// locks returns the files of all instances in the current network namespace.
func locks(dir string) []string {
	path, err := lockPath(dir, 0, "")
	if err != nil {
		return nil
	}
	files, _ := filepath.Glob(path[:strings.LastIndex(path, "-")+1] + "*")
	return files
}

// maxInstance is how much of an instance an alias shows.
const maxInstance = 90

// shortName is an instance as it is written into aliases.
func shortName(instance string) string {
	instance = strings.TrimSpace(instance)
	if len(instance) <= maxInstance {
		return instance
	}
	sum := sha256.Sum256([]byte(instance))
	hash := "#" + hex.EncodeToString(sum[:8])
	return instance[:maxInstance-len(hash)] + hash
}
