package rtnl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ErrOverrun is returned by Events.Read when the kernel had to drop events.
// Those that follow can be read.
var ErrOverrun = errors.New("netlink events lost")

// Events receives what the kernel tells its multicast groups.
type Events struct {
	file *os.File
	recv []byte
}

// Listen opens a socket in a namespace that receives the events of groups
// (unix.RTNLGRP_...). buffer is the size in bytes of what the kernel keeps for
// a slow reader. Until the first call of Filter everything passes.
func Listen(namespace, buffer int, groups ...int) (*Events, error) {
	fd, err := socket(namespace, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, err
	}
	e := &Events{file: os.NewFile(uintptr(fd), "netlink"), recv: make([]byte, receiveSize)}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		// Only within the host's limit then; an overrun is noticed.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	if _, err := bind(fd); err != nil {
		_ = e.file.Close()
		return nil, err
	}
	for _, group := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			_ = e.file.Close()
			return nil, fmt.Errorf("join netlink group %d: %w", group, err)
		}
	}
	return e, nil
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
	conn, err := e.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("attach socket filter: %w", err)
	}
	return nil
}

// Read waits for the next datagram and passes its messages. They are valid
// during the call only. It returns ctx.Err() when ctx ends.
func (e *Events) Read(ctx context.Context, each func(m Message)) error {
	n, err := e.file.Read(e.recv)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, unix.ENOBUFS):
		return ErrOverrun
	case err != nil:
		return err
	}
	for m := range Messages(e.recv[:n]) {
		each(m)
	}
	return nil
}

// Interrupt makes a waiting Read return, and all later ones. The context of
// Read must have ended before.
func (e *Events) Interrupt() { _ = e.file.SetReadDeadline(time.Unix(1, 0)) }

// Close ends the subscription.
func (e *Events) Close() error { return e.file.Close() }
