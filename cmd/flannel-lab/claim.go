package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const defaultName = "lab"

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

// errBusy says that a lab of this name is up.
var errBusy = errors.New("is up already")

// place is where a lab of a name is found: a lock that its processes hold, and
// the socket it answers on.
type place struct{ name, dir string }

func placeOf(name string) (place, error) {
	if !validName.MatchString(name) {
		return place{}, fmt.Errorf("--name %q: want lower-case letters, digits and dashes, at most 31", name)
	}
	dir := "/run"
	if uid := os.Getuid(); uid != 0 {
		if dir = os.Getenv("XDG_RUNTIME_DIR"); dir == "" {
			// Nobody else may prepare this folder: see claim.
			return place{name, filepath.Join(os.TempDir(), fmt.Sprintf("flannel-lab-%d", uid))}, nil
		}
	}
	return place{name, filepath.Join(dir, "flannel-lab")}, nil
}

func (p place) lockPath() string   { return filepath.Join(p.dir, p.name+".lock") }
func (p place) socketPath() string { return filepath.Join(p.dir, p.name+".sock") }

// kubeconfigPath is the file for clients of a lab with Kubernetes.
func (p place) kubeconfigPath() string { return filepath.Join(p.dir, p.name+".kubeconfig") }

// claim is the right to be the lab of a name. It lasts as long as any process
// holds the lock open.
type claim struct {
	place
	lock *os.File
	// socket listens; the lab accepts.
	socket *os.File
}

// claim takes the name. The error is errBusy when a lab has it.
func (p place) claim() (*claim, error) {
	lock, err := p.lockNow()
	if err != nil {
		return nil, err
	}
	c := &claim{place: p, lock: lock}
	// A lab that was killed has left its socket.
	if err := os.Remove(p.socketPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.release()
		return nil, err
	}
	if c.socket, err = listen(p.socketPath()); err != nil {
		c.release()
		return nil, err
	}
	return c, nil
}

func listen(path string) (*os.File, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	return l.File()
}

// lockNow takes the lock, or returns errBusy.
func (p place) lockNow() (*os.File, error) {
	for {
		if err := p.makeDir(); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(p.lockPath(), os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a release has just removed the folder
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("lab %q %w", p.name, errBusy)
			}
			return nil, fmt.Errorf("lock %s: %w", p.lockPath(), err)
		}
		// A release removes the file before it lets go of the lock.
		if p.stillThere(f) {
			return f, nil
		}
		f.Close()
	}
}

func (p place) makeDir() error {
	if err := os.Mkdir(p.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the next step finds out
	}
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(stat.Uid) != os.Getuid() {
		return fmt.Errorf("%s belongs to somebody else", p.dir)
	}
	return nil
}

func (p place) stillThere(f *os.File) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(p.lockPath())
	return err == nil && os.SameFile(opened, named)
}

// setPID notes the process that ends the lab when it gets SIGTERM.
func (c *claim) setPID(pid int) error {
	if err := c.lock.Truncate(0); err != nil {
		return err
	}
	_, err := c.lock.WriteAt([]byte(strconv.Itoa(pid)+"\n"), 0)
	return err
}

// pid returns the noted process; ok is false while there is none.
func (p place) pid() (pid int, ok bool) {
	f, err := os.Open(p.lockPath())
	if err != nil {
		return 0, false
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return pid, err == nil && pid > 1
}

// files are what the lab's own process gets: see heldFiles.
func (c *claim) files() []*os.File { return []*os.File{c.lock, c.socket} }

// keep closes this process's part; the lab's own process has the name.
func (c *claim) keep() {
	c.lock.Close()
	c.socket.Close()
}

// release gives the name back and removes its files.
func (c *claim) release() {
	_ = os.Remove(c.kubeconfigPath())
	_ = os.Remove(c.socketPath())
	_ = os.Remove(c.lockPath())
	// Another lab's files keep the folder.
	_ = os.Remove(c.dir)
	c.lock.Close()
	if c.socket != nil {
		c.socket.Close()
	}
}
