// Package statedir keeps what the daemon knows across restarts of the daemon and of
// the host: one folder, one JSON document for each purpose.
package statedir

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"flannel/internal/atomicfile"
)

// Fallback is the folder for documents if there is none that outlives a reboot.
const Fallback = "/run/flannel/state"

// maxSize is far more than a document has.
const maxSize = 64 << 20

// Dir is the folder of one daemon. A nil Dir keeps nothing. Its methods may be
// called by several goroutines, for one document by one at a time.
type Dir struct {
	path string
	// volatile is set if path is the fallback, which is created if missing.
	volatile bool
	// owner is in the name of every document.
	owner string
}

// Open returns the folder path, which is never created, or, when it does not
// exist or cannot be used, the fallback, which is created with its first
// document. An empty path keeps nothing. owner tells daemons apart that may use
// the same folder.
func Open(log *slog.Logger, path, fallback string, owner ...string) *Dir {
	if path == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(strings.Join(owner, "\x00")))
	d := &Dir{path: path, owner: hex.EncodeToString(sum[:6])}
	err := usable(path)
	if err == nil {
		return d
	}
	d.path, d.volatile = fallback, true
	if !errors.Is(err, fs.ErrNotExist) {
		log.Warn("state folder not used", "err", err, "instead", fallback)
	}
	if failed := usable(fallback); failed != nil && !errors.Is(failed, fs.ErrNotExist) {
		log.Warn("state folder not used; nothing is kept for the next start", "err", failed)
		return nil
	}
	return d
}

// usable reports what keeps a folder from being used: it must be ours alone to
// write to.
func usable(path string) error {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	switch {
	case stat.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s is not a folder", path)
	case int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d: make user %d its owner", path, stat.Uid, os.Geteuid())
	case stat.Mode&0o022 != 0:
		return fmt.Errorf("%s can be written by other users: chmod go-w %s", path, path)
	}
	if err := unix.Access(path, unix.W_OK|unix.X_OK); err != nil {
		return &fs.PathError{Op: "write to", Path: path, Err: err}
	}
	return nil
}

// Load reads a document into v. The error wraps fs.ErrNotExist if there is none.
func (d *Dir) Load(name string, v any) error {
	if d == nil {
		return fs.ErrNotExist
	}
	f, err := os.Open(d.file(name))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxSize)).Decode(v); err != nil {
		return fmt.Errorf("read %s: %w", d.file(name), err)
	}
	return nil
}

// Save writes a document whole; it is on the disk when Save returns.
func (d *Dir) Save(name string, v any) error {
	if d == nil {
		return nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", d.file(name), err)
	}
	return d.Write(name, append(text, '\n'))
}

// Write saves a document that is text already. A file with the same text is not
// written again.
func (d *Dir) Write(name string, text []byte) error {
	if d == nil {
		return nil
	}
	if holds(d.file(name), text) {
		return nil
	}
	if d.volatile {
		if err := os.MkdirAll(filepath.Dir(d.path), 0o755); err != nil {
			return err
		}
		if err := os.Mkdir(d.path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := usable(d.path); err != nil {
		return err
	}
	return atomicfile.Write(d.file(name), text, 0o600)
}

// holds reports whether a file holds this text, without reading it whole: the
// leases of a large cluster are more than a megabyte.
func holds(path string, text []byte) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != int64(len(text)) {
		return false
	}
	part := make([]byte, 32<<10)
	for len(text) > 0 {
		n, err := f.Read(part)
		if err != nil || n > len(text) || !bytes.Equal(part[:n], text[:n]) {
			return false
		}
		text = text[n:]
	}
	return true
}

func (d *Dir) file(name string) string {
	return filepath.Join(d.path, name+"-"+d.owner+".json")
}

// BootID names the time since the host was started: it is another one after
// each reboot. It is empty if the kernel does not report it.
func BootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
