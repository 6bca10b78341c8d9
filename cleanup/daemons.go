package cleanup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"flannel/kernel"
)

// running returns an error if a daemon of this software or of flannel runs in this
// network namespace. Ours hold a lock, which containers see as well; flannel's are
// found by their name.
func running(o Options) error {
	if kernel.AnyInstanceRuns(o.LockDir) {
		return fmt.Errorf("%w: flanneld: stop it first, for example with: kubectl -n kube-flannel delete ds kube-flannel-ds; "+
			"or: systemctl stop flanneld; -force does not look", ErrRunning)
	}
	if pid := process(o.Proc); pid != 0 {
		return fmt.Errorf("%w: flanneld, process %d: stop it first; -force does not look", ErrRunning, pid)
	}
	return nil
}

// process returns the ID of a process called flanneld in this network namespace that
// is not one of our commands, or 0.
func process(proc string) int {
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return 0
	}
	entries, _ := os.ReadDir(proc)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := filepath.Join(proc, e.Name())
		// Whoever has more rights than this process may be anywhere.
		namespace, err := os.Readlink(filepath.Join(dir, "ns/net"))
		if namespace != own && !errors.Is(err, fs.ErrPermission) {
			continue
		}
		if line, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil && isDaemon(line) {
			return pid
		}
	}
	return 0
}

// isDaemon reports whether a command line starts a daemon: commands have a name as
// their first argument, daemons have flags only.
func isDaemon(cmdline []byte) bool {
	args := bytes.Split(bytes.TrimSuffix(cmdline, []byte{0}), []byte{0})
	if filepath.Base(string(args[0])) != "flanneld" {
		return false
	}
	return len(args) == 1 || strings.HasPrefix(string(args[1]), "-")
}
