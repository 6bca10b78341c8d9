package rtnl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ErrOverrun is returned by Events.Read and Drain when the kernel had to drop
// events. Those that follow can be read.
var ErrOverrun = errors.New("netlink events lost")

// Events receives what the kernel tells its multicast groups. It is for one
// goroutine, but for Filter and Close.
type Events struct {
	file *os.File
	conn syscall.RawConn
	recv []byte
	// buffer is the size of the kernel's buffer as it was asked for.
	buffer int
}

// maxBuffer bounds the kernel's buffer.
const maxBuffer = 16 << 20

// Listen opens a socket in a namespace that receives the events of groups
// (unix.RTNLGRP_...). buffer is the size in bytes of what the kernel keeps for
// a slow reader; it doubles with each overrun, up to 16 MiB. Until the first
// call of Filter everything passes.
func Listen(namespace, buffer int, groups ...int) (*Events, error) {
	return ListenTo(namespace, unix.NETLINK_ROUTE, buffer, groups...)
}

// ListenTo is Listen for the groups of another protocol (unix.NETLINK_...).
func ListenTo(namespace, protocol, buffer int, groups ...int) (*Events, error) {
	fd, err := socket(namespace, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, err
	}
	e := &Events{file: os.NewFile(uintptr(fd), "netlink"), recv: make([]byte, receiveSize)}
	if err := e.open(fd, buffer, groups); err != nil {
		return nil, errors.Join(err, e.file.Close())
	}
	return e, nil
}

func (e *Events) open(fd, buffer int, groups []int) (err error) {
	if e.conn, err = e.file.SyscallConn(); err != nil {
		return err
	}
	e.resize(buffer)
	if _, err := bind(fd); err != nil {
		return err
	}
	return e.Join(groups...)
}

// resize sets the size of the kernel's buffer. Without the right to exceed the
// host's limit that limit holds; an overrun is noticed.
func (e *Events) resize(size int) {
	e.buffer = min(size, maxBuffer)
	_ = e.conn.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, e.buffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, e.buffer)
		}
	})
}

// Join adds groups. What happened before is not reported.
func (e *Events) Join(groups ...int) error { return e.membership(unix.NETLINK_ADD_MEMBERSHIP, groups) }

// Leave removes groups.
func (e *Events) Leave(groups ...int) error {
	return e.membership(unix.NETLINK_DROP_MEMBERSHIP, groups)
}

func (e *Events) membership(option int, groups []int) error {
	return e.control(func(fd int) error {
		for _, group := range groups {
			if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, group); err != nil {
				return fmt.Errorf("join or leave netlink group %d: %w", group, err)
			}
		}
		return nil
	})
}

func (e *Events) control(act func(fd int) error) (err error) {
	if closed := e.conn.Control(func(fd uintptr) { err = act(int(fd)) }); closed != nil {
		return closed
	}
	return err
}

// Filter lets only messages pass that the program accepts. The kernel drops
// the others before they reach the socket.
func (e *Events) Filter(program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assemble socket filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	err = e.control(func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
	if err != nil {
		return fmt.Errorf("attach socket filter: %w", err)
	}
	return nil
}

// Read waits until there are events and passes the messages of all that are
// there. They are valid during the call only. It returns ctx.Err() when ctx ends.
func (e *Events) Read(ctx context.Context, each func(m Message)) error {
	stop := context.AfterFunc(ctx, func() { _ = e.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	return e.read(ctx, each, true)
}

// Drain passes the messages that are there and does not wait for more. They are
// valid during the call only.
func (e *Events) Drain(each func(m Message)) error {
	return e.read(context.Background(), each, false)
}

// read reads until nothing is left. An interruption counts only if ctx has
// ended: it may be that of an earlier Read, whose context ended at its end.
func (e *Events) read(ctx context.Context, each func(m Message), wait bool) error {
	for {
		if err := e.file.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := e.readOnce(each, wait); !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

func (e *Events) readOnce(each func(m Message), wait bool) (err error) {
	overrun := false
	interrupted := e.conn.Read(func(fd uintptr) bool {
		for got := false; ; got = true {
			n, readErr := unix.Read(int(fd), e.recv)
			switch {
			case errors.Is(readErr, unix.EINTR):
			case errors.Is(readErr, unix.EAGAIN):
				return got || !wait
			case errors.Is(readErr, unix.ENOBUFS):
				overrun = true
			case readErr != nil:
				err = os.NewSyscallError("read", readErr)
				return true
			default:
				for m := range Messages(e.recv[:n]) {
					each(m)
				}
			}
		}
	})
	switch {
	case interrupted != nil:
		return interrupted
	case err != nil:
		return err
	case overrun:
		e.resize(2 * e.buffer)
		return ErrOverrun
	}
	return nil
}

// Close ends the subscription.
func (e *Events) Close() error { return e.file.Close() }
