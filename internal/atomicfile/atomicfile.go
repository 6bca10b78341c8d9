// Package atomicfile writes files whole: a reader sees the former content or
// all of the present one, also after a crash.
package atomicfile

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write puts data into the file path with exactly this mode, whatever the
// umask. The folder is created when it is missing (mode 0755). On error path
// is as it was and nothing else is left behind.
func Write(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, true)
}

// WriteVolatile is Write without waiting for the disk. A power cut may leave
// the file empty or as it was: that is for content which means nothing after
// a restart of the machine.
func WriteVolatile(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, false)
}

func write(path string, data []byte, mode fs.FileMode, sync bool) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := fill(f, data, mode, sync); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	if sync {
		syncDir(dir)
	}
	return nil
}

// fill writes and closes f. The temporary file starts with mode 0600, so its
// content is never open to more users than mode allows.
func fill(f *os.File, data []byte, mode fs.FileMode, sync bool) error {
	steps := []func() error{
		func() error { return f.Chmod(mode) },
		func() error { _, err := f.Write(data); return err },
	}
	if sync {
		steps = append(steps, f.Sync)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			f.Close()
			return err
		}
	}
	return f.Close()
}

// syncDir makes the rename last through a power cut. Not every file system
// can sync a folder; the file itself is complete either way.
func syncDir(dir string) {
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	_ = d.Sync()
}
