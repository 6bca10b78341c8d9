package cniplugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"flannel/internal/atomicfile"
)

// scratch keeps, per container, the configuration that ADD gave to the
// delegate: CHECK and DEL need the same one, whatever has changed since.
type scratch struct{ dir string }

// record is one file of the folder.
type record struct {
	Name string `json:"name"`
	Type string `json:"type"`
	// text is the delegate's whole configuration.
	text []byte
}

const (
	scratchMode    = 0o600
	scratchDirMode = 0o700
	// abandoned is the age from which a temporary file has no writer.
	abandoned = time.Minute
)

func (s scratch) path(container string) string { return filepath.Join(s.dir, container) }

func (s scratch) save(container string, text []byte) error {
	if err := os.MkdirAll(s.dir, scratchDirMode); err != nil {
		return fmt.Errorf("keep the delegate's configuration: %w", err)
	}
	// No container outlives a power cut, and a pod should not wait for the disk.
	return atomicfile.WriteVolatile(s.path(container), text, scratchMode)
}

// errGarbled is the error if a file is not a delegate's configuration.
var errGarbled = errors.New("is not a network configuration")

// load reads a container's file. The error wraps fs.ErrNotExist if there is none,
// and errGarbled if it cannot be parsed.
func (s scratch) load(container string) (record, error) {
	text, err := os.ReadFile(s.path(container))
	if err != nil {
		return record{}, err
	}
	r := record{text: text}
	if json.Unmarshal(text, &r) != nil || r.Type == "" {
		return record{}, fmt.Errorf("%s %w", s.path(container), errGarbled)
	}
	return r, nil
}

func (s scratch) remove(container string) error {
	if err := os.Remove(s.path(container)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sweep removes the files of a network whose containers are not in use, and
// empty and temporary files that nobody writes any more. Files of others stay.
func (s scratch) sweep(network string, inUse map[string]bool, log func(string, ...any)) error {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		name := entry.Name()
		if !entry.Type().IsRegular() || inUse[name] {
			continue
		}
		if !s.isStale(entry, network) {
			continue
		}
		log("removed %s: its container is gone", s.path(name))
		errs = append(errs, s.remove(name))
	}
	return errors.Join(errs...)
}

func (s scratch) isStale(entry fs.DirEntry, network string) bool {
	info, err := entry.Info()
	if err != nil {
		return false
	}
	// A power cut leaves empty files.
	if strings.HasPrefix(entry.Name(), ".") || info.Size() == 0 {
		return time.Since(info.ModTime()) > abandoned
	}
	r, err := s.load(entry.Name())
	return err == nil && r.Name == network
}
