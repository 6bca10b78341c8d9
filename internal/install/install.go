// Package install copies the CNI plugin and its configuration into the folders of a
// container runtime.
package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"

	"flannel/internal/atomicfile"
)

// ConfName is the name of the installed network configuration. A runtime takes
// the first file of its folder.
const ConfName = "10-flannel.conflist"

// File copies a file with its permissions. It is replaced whole: whoever reads or
// runs it gets the previous or the current one. The folder is created if missing. A
// file that is the same already is not written, which spares the runtimes that watch
// the folder.
func File(from, to string) error {
	data, mode, err := read(from)
	if err == nil {
		err = put(data, mode, to)
	}
	if err != nil {
		return fmt.Errorf("install %s: %w", to, err)
	}
	return nil
}

// Copy copies files as File does: one to a target, or any number into a folder,
// which must be there. As with cp, a file that is there keeps its permissions, and
// a device is never replaced.
func Copy(from []string, to string) error {
	info, err := os.Stat(to)
	into := err == nil && info.IsDir()
	if len(from) != 1 && !into {
		return fmt.Errorf("copy %d files: %s is not a folder", len(from), to)
	}
	if _, err := os.Stat(filepath.Dir(to)); err != nil {
		return fmt.Errorf("copy to %s: %w", to, err)
	}
	var errs []error
	for _, path := range from {
		target := to
		if into {
			target = filepath.Join(to, filepath.Base(path))
		}
		if err := copyFile(path, target); err != nil {
			errs = append(errs, fmt.Errorf("copy to %s: %w", target, err))
		}
	}
	return errors.Join(errs...)
}

func copyFile(from, to string) error {
	data, mode, err := read(from)
	if err != nil {
		return err
	}
	if info, err := os.Stat(to); err == nil {
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a file", to)
		}
		mode = info.Mode().Perm()
	}
	return put(data, mode, to)
}

// Conf checks a network configuration as runtimes do, and installs it in their
// folder. One that is not valid leaves everything as it is.
func Conf(from, dir string) error {
	data, mode, err := read(from)
	if err == nil {
		err = validate(data)
	}
	if err == nil {
		err = put(data, mode, filepath.Join(dir, ConfName))
	}
	if err != nil {
		return fmt.Errorf("install the network configuration %s: %w", from, err)
	}
	return nil
}

// RemoveConf takes a network configuration away that Conf has installed, and
// reports whether there was one.
func RemoveConf(dir string) (removed bool, err error) {
	err = os.Remove(filepath.Join(dir, ConfName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func validate(conf []byte) error {
	list, err := libcni.NetworkConfFromBytes(conf)
	if err == nil && len(list.Plugins) == 0 {
		return errors.New("plugins: missing or empty")
	}
	return err
}

// read follows links: files of a ConfigMap are some.
func read(path string) ([]byte, fs.FileMode, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a file", path)
	}
	data, err := os.ReadFile(path)
	return data, info.Mode().Perm(), err
}

func put(data []byte, mode fs.FileMode, to string) error {
	if have, haveMode, err := read(to); err == nil && haveMode == mode && bytes.Equal(have, data) {
		return nil
	}
	return atomicfile.Write(to, data, mode)
}
