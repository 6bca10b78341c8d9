package socket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoDaemon is the error of Get if nobody listens.
var ErrNoDaemon = errors.New("no flanneld answers")

// maxAnswer is the largest answer that is read; /status of 5,000 peers in both
// families has 3 MB.
const maxAnswer = 64 << 20

// Get asks the daemon at a socket for a page such as /readyz and returns the status
// code and the body.
func Get(ctx context.Context, path, page string) (code int, body []byte, err error) {
	return Ask(ctx, path, "GET", page)
}

// Ask is Get with a method, without a body.
//
// It speaks HTTP/1.0, whose answer is what comes until the connection is closed, on
// a bare file: net/http would double the size of the CNI plugin, and the dialer of
// net add a tenth.
func Ask(ctx context.Context, path, method, page string) (code int, body []byte, err error) {
	code, body, err = ask(ctx, path, method, page)
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return 0, nil, fmt.Errorf("%w on %s", ErrNoDaemon, path)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("ask %s for %s: %w", path, page, err)
	}
	return code, body, nil
}

func ask(ctx context.Context, path, method, page string) (int, []byte, error) {
	conn, err := connect(path)
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", method, page); err != nil {
		return 0, nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(conn, maxAnswer+1))
	switch {
	case err != nil:
		return 0, nil, err
	case len(answer) > maxAnswer:
		return 0, nil, fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	}
	return parse(answer)
}

// connect never blocks: a daemon whose queue is full is an error.
func connect(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), path), nil
}

// parse takes an answer apart. Its headers matter to nobody.
func parse(answer []byte) (code int, body []byte, err error) {
	head, body, complete := bytes.Cut(answer, []byte("\r\n\r\n"))
	line, _, _ := strings.Cut(string(head), "\r\n")
	fields := strings.Fields(line)
	if !complete || len(fields) < 2 || !strings.HasPrefix(fields[0], "HTTP/") {
		return 0, nil, errors.New("the answer is not HTTP")
	}
	if code, err = strconv.Atoi(fields[1]); err != nil {
		return 0, nil, fmt.Errorf("status code %q", fields[1])
	}
	return code, body, nil
}

// PID returns the process that listens at a socket; 0 if it is not in the namespace
// of this one. Nobody there is an error.
func PID(path string) (int, error) {
	conn, err := connect(path)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, failed
	}
	return int(cred.Pid), nil
}
