package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// root is below which the hierarchies are mounted.
const root = "/sys/fs/cgroup"

// hierarchies returns the mount points of all of them.
func hierarchies() ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if len(fields) > 4 && strings.HasPrefix(after, "cgroup") && strings.HasPrefix(fields[4], root) {
			out = append(out, fields[4])
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Sweep removes what labs have left that were killed. It disturbs no lab that
// lives. Only root has such labs.
func Sweep(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return nil
	}
	all, err := hierarchies()
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, h := range all {
		found, _ := filepath.Glob(filepath.Join(h, prefix+"*")) // the pattern is good
		for _, path := range found {
			names[filepath.Base(path)] = true
		}
	}
	var errs []error
	for name := range names {
		errs = append(errs, sweepOne(ctx, all, name))
	}
	return errors.Join(errs...)
}

func sweepOne(ctx context.Context, all []string, name string) error {
	lock, err := os.Open(filepath.Join(all[0], name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// The last group that a removal takes: nobody holds the others.
	case err != nil:
		return err
	default:
		defer lock.Close()
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			return nil
		}
	}
	return removeAll(ctx, all, name)
}

// Kill ends every process of a group and of those below it, and waits until
// they are gone.
func (t *Tree) Kill(ctx context.Context, sub string) error {
	return poll(ctx, func() error {
		pids := map[int]bool{}
		err := t.each(sub, func(group string) error { return members(group, pids) })
		for pid := range pids {
			if kill := syscall.Kill(pid, syscall.SIGKILL); !errors.Is(kill, syscall.ESRCH) {
				err = errors.Join(err, kill)
			}
		}
		if err == nil && len(pids) > 0 {
			err = fmt.Errorf("%d processes are left in %s", len(pids), t.Path(sub))
		}
		return err
	})
}

// members collects the processes of a group and of those below it.
func members(group string, pids map[int]bool) error {
	return filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it has just gone
		}
		if err != nil || d.IsDir() || d.Name() != "cgroup.procs" {
			return err
		}
		text, err := os.ReadFile(path)
		for field := range strings.FieldsSeq(string(text)) {
			if pid, _ := strconv.Atoi(field); pid > 1 {
				pids[pid] = true
			}
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		return err
	})
}

// removeAll removes the groups of this name, those of the first hierarchy last.
func removeAll(ctx context.Context, all []string, name string) error {
	return poll(ctx, func() error {
		for _, h := range slices.Backward(all) {
			if err := removeGroup(filepath.Join(h, name)); err != nil {
				return err
			}
		}
		return nil
	})
}

// removeGroup removes a group without processes, and those below it.
func removeGroup(group string) error {
	entries, err := os.ReadDir(group)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(filepath.Join(group, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(group); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", group, err)
	}
	return nil
}

// patience is how long processes may take to vanish after a kill.
const patience = 20 * time.Second

// poll repeats an attempt until it succeeds.
func poll(ctx context.Context, attempt func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}
