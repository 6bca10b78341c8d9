package rtnl

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Inside runs f on a thread inside a namespace and waits for it. The zero
// namespace is the current one.
func Inside(namespace int, f func() error) error {
	if namespace <= 0 {
		return f()
	}
	done := make(chan error)
	go func() {
		// The thread stays locked and so ends with this goroutine: nothing
		// else ever runs in the foreign namespace.
		runtime.LockOSThread()
		if err := unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Datagram opens an IPv4 UDP socket in a namespace, for requests by ioctl.
func Datagram(namespace int) (*os.File, error) {
	var fd int
	err := Inside(namespace, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "udp"), nil
}

func socket(namespace, flags, protocol int) (int, error) {
	fd := -1
	err := Inside(namespace, func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|flags, protocol)
		return os.NewSyscallError("socket", err)
	})
	return fd, err
}

// bind gets the socket a port of its own and returns it.
func bind(fd int) (uint32, error) {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	address, ok := name.(*unix.SockaddrNetlink)
	if !ok {
		return 0, fmt.Errorf("netlink socket has an address of type %T", name)
	}
	return address.Pid, nil
}
