// Package cgroup keeps the control groups of a lab. They are the one thing of
// it that no namespace takes along, so each lab holds a lock on its own, and
// Sweep removes those that nobody holds.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// prefix starts the name of every lab's group.
const prefix = "flannel-lab-"

// Tree is the groups of one lab: one of the same name in every hierarchy of the
// machine, with further ones below it.
type Tree struct {
	name string
	// hierarchies are their mount points. The first one's group is made first,
	// removed last, and has the lock.
	hierarchies []string
	lock        *os.File
}

// New makes the groups of a lab. The caller removes them.
func New() (*Tree, error) {
	t := &Tree{name: fmt.Sprintf("%s%08x", prefix, rand.Uint32())}
	var err error
	if t.hierarchies, err = hierarchies(); err != nil {
		return nil, err
	}
	if len(t.hierarchies) == 0 {
		return nil, errors.New("no control groups are mounted below /sys/fs/cgroup")
	}
	for t.lock == nil {
		if err := makeGroup(filepath.Join(t.hierarchies[0], t.name)); err != nil {
			return nil, err
		}
		if t.lock, err = takeLock(filepath.Join(t.hierarchies[0], t.name)); err != nil {
			return nil, err
		}
	}
	if err := t.Make(""); err != nil {
		return nil, errors.Join(err, t.Remove(context.Background()))
	}
	return t, nil
}

// takeLock holds a group until the file is closed or the process ends. It
// returns nil when a sweep has taken the group away.
func takeLock(group string) (*os.File, error) {
	f, err := os.Open(group)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", group, err)
	}
	opened, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if named, err := os.Stat(group); err != nil || !os.SameFile(opened, named) {
		f.Close()
		return nil, nil
	}
	return f, nil
}

// Path returns the group below the lab's as programs are told it.
func (t *Tree) Path(sub string) string { return filepath.Join("/", t.name, sub) }

func (t *Tree) each(sub string, do func(group string) error) error {
	var errs []error
	for _, h := range t.hierarchies {
		errs = append(errs, do(filepath.Join(h, t.name, sub)))
	}
	return errors.Join(errs...)
}

// Make makes a group below the lab's, ready for processes and for groups below
// it.
func (t *Tree) Make(sub string) error { return t.each(sub, makeGroup) }

// Add moves a process into a group.
func (t *Tree) Add(sub string, pid int) error {
	return t.each(sub, func(group string) error {
		return write(filepath.Join(group, "cgroup.procs"), fmt.Sprint(pid))
	})
}

// Remove ends every process of the lab's groups and removes them.
func (t *Tree) Remove(ctx context.Context) error {
	defer t.lock.Close()
	if err := t.Kill(ctx, ""); err != nil {
		return err
	}
	return removeAll(ctx, t.hierarchies, t.name)
}

// makeGroup makes a group and those above it.
func makeGroup(group string) error {
	parent := filepath.Dir(group)
	if _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) {
		if err := makeGroup(parent); err != nil {
			return err
		}
	}
	if err := delegate(parent); err != nil {
		return err
	}
	if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return inheritCPUs(parent, group)
}

// delegate lets groups below this one have its controllers, in version 2.
func delegate(group string) error {
	text, err := os.ReadFile(filepath.Join(group, "cgroup.controllers"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(text)) {
		if err := write(filepath.Join(group, "cgroup.subtree_control"), "+"+name); err != nil {
			return err
		}
	}
	return nil
}

// inheritCPUs gives a group its parent's processors, in version 1: without any
// it takes no process.
func inheritCPUs(parent, group string) error {
	if _, err := os.Stat(filepath.Join(group, "cgroup.controllers")); err == nil {
		return nil
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		text, err := os.ReadFile(filepath.Join(group, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(text)) != "" {
			continue
		}
		if text, err = os.ReadFile(filepath.Join(parent, name)); err != nil {
			return err
		}
		if err := write(filepath.Join(group, name), string(text)); err != nil {
			return err
		}
	}
	return nil
}

// write writes to a file of the kernel.
func write(path, text string) error {
	if err := os.WriteFile(path, []byte(strings.TrimSpace(text)), 0); err != nil {
		return fmt.Errorf("set %s: %w", path, err)
	}
	return nil
}
