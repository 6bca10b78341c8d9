// Package socket is the unix socket on which a daemon answers programs of root on
// its host, and the client that asks there.
package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Path returns where the daemon with this subnet file listens: two daemons on one
// host have two subnet files, and whoever knows the file finds its daemon.
func Path(subnetFile string) string {
	return strings.TrimSuffix(subnetFile, ".env") + ".sock"
}

const (
	mode = 0o600
	// knock is how long a socket that is there already has to accept a
	// connection.
	knock = time.Second
)

// Listen listens at a path and replaces the socket of a daemon that has ended. It
// fails if a daemon answers there, or if the path is anything but a socket.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	// The mode is that of the unbound socket: at no moment can others connect.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmod error
		err := c.Control(func(fd uintptr) { chmod = unix.Fchmod(int(fd), mode) })
		return errors.Join(err, chmod)
	}}
	return config.Listen(ctx, "unix", path)
}

func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is not a socket: remove it, or choose another --subnet-file", path)
	}
	dialer := net.Dialer{Timeout: knock}
	conn, err := dialer.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return fmt.Errorf("another flanneld answers on %s: give this one its own --subnet-file", path)
	case !errors.Is(err, unix.ECONNREFUSED):
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
