package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"flannel/lab/sandbox"
)

const defaultName = "lab"

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

// place is where a lab of a name is found: a file that the lab's process has
// locked. The kernel knows which process that is, and drops the lock with it.
type place struct{ name, dir string }

func placeOf(name string) (place, error) {
	if !validName.MatchString(name) {
		return place{}, fmt.Errorf("--name %q: want lower-case letters, digits and dashes, at most 31", name)
	}
	dir := "/run"
	if uid := os.Getuid(); uid != 0 {
		if dir = os.Getenv("XDG_RUNTIME_DIR"); dir == "" {
			// Nobody else may prepare this folder: see makeDir.
			return place{name, filepath.Join(os.TempDir(), fmt.Sprintf("flannel-lab-%d", uid))}, nil
		}
	}
	return place{name, filepath.Join(dir, "flannel-lab")}, nil
}

func (p place) lockPath() string { return filepath.Join(p.dir, p.name+".lock") }

// kubeconfigPath is the file for clients of a lab with Kubernetes.
func (p place) kubeconfigPath() string { return filepath.Join(p.dir, p.name+".kubeconfig") }

// open opens the file that the lab's process is to lock.
func (p place) open() (*os.File, error) {
	for {
		if err := p.makeDir(); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(p.lockPath(), os.O_CREATE|os.O_RDWR, 0o600)
		if !errors.Is(err, fs.ErrNotExist) { // clear has just removed the folder
			return f, err
		}
	}
}

func (p place) makeDir() error {
	if err := os.Mkdir(p.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // open tries again
	}
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(stat.Uid) != os.Getuid() {
		return fmt.Errorf("%s belongs to another user", p.dir)
	}
	return nil
}

// lock makes this process the lab of the file's name. A file that clear has
// removed is nobody's place any more.
func lock(f *os.File) error {
	whole := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &whole); err != nil {
		return fmt.Errorf("another lab of this name is up: lock %s: %w", f.Name(), err)
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Nlink == 0 {
		return errors.New("a lab of this name has just ended; try again")
	}
	return nil
}

// lockPassed locks the file that the sandbox was started with, if there is one.
// The lock ends with release.
func lockPassed() (release func(), err error) {
	files := sandbox.Files()
	release = func() {
		for _, f := range files {
			f.Close()
		}
	}
	for _, f := range files {
		if err := lock(f); err != nil {
			release()
			return nil, err
		}
	}
	return release, nil
}

// holder returns the process of the lab, 0 if none has the name.
func (p place) holder() (pid int, err error) {
	f, err := os.OpenFile(p.lockPath(), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	held := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &held); err != nil {
		return 0, fmt.Errorf("read the lock of %s: %w", p.lockPath(), err)
	}
	if held.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(held.Pid), nil
}

// running returns the process of a lab that must be up, and its sandbox.
func (p place) running() (pid int, s sandbox.Running, err error) {
	if pid, err = p.holder(); err != nil {
		return 0, s, err
	}
	if pid == 0 {
		return 0, s, fmt.Errorf("lab %q is not up; start it with flannel-lab up 3 --name %s", p.name, p.name)
	}
	s, err = sandbox.Of(pid)
	return pid, s, err
}

// clear removes the files of a lab that has ended, unless another has the name.
func (p place) clear() {
	if f, err := os.OpenFile(p.lockPath(), os.O_RDWR, 0); err == nil {
		defer f.Close()
		if lock(f) != nil {
			return
		}
	}
	for _, path := range []string{p.kubeconfigPath(), p.lockPath(), p.dir} {
		// The files of another lab keep the folder.
		_ = os.Remove(path)
	}
}

// ask reads an answer of the lab: see serve.
func (p place) ask(path string, answer any) error {
	_, s, err := p.running()
	if err != nil {
		return err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(s.Dir, socketName))
	}
	client := http.Client{Timeout: answerLimit, Transport: &http.Transport{DialContext: dial}}
	resp, err := client.Get("http://" + p.name + path)
	if err != nil {
		return fmt.Errorf("lab %q does not answer: it is starting or ending: %w", p.name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return errors.New(string(text))
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("read the answer of lab %q: %w", p.name, err)
	}
	return nil
}

// answerLimit is how long an answer of the lab may take.
const answerLimit = 10 * time.Second
