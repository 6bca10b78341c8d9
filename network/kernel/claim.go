package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"flannel/network/kernel/rtnl"

	"golang.org/x/sys/unix"
)

// ErrClaimed says that another daemon runs as the same instance.
var ErrClaimed = errors.New("another daemon on this host runs as the same instance")

// Claim says to other daemons in this network namespace that the one with this
// Scope.Instance runs: its devices are left alone until the claim is closed or
// the process ends. The error wraps ErrClaimed while another has the claim.
func Claim(instance string) (io.Closer, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("claim instance %q: %w", instance, os.NewSyscallError("socket", err))
	}
	if err := unix.Bind(fd, claimAddr(instance)); err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("claim instance %q: %w", instance, ErrClaimed)
		}
		return nil, fmt.Errorf("claim instance %q: %w", instance, os.NewSyscallError("bind", err))
	}
	return os.NewFile(uintptr(fd), "claim"), nil
}

// claimAddr is an abstract socket: its name is free again when the process
// ends, however it ends, and is one per network namespace, whatever is
// mounted where.
func claimAddr(instance string) *unix.SockaddrUnix {
	return &unix.SockaddrUnix{Name: "@" + aliasWord + "-" + shortName(instance)}
}

// alive reports whether somebody in the namespace has claimed an instance.
// Only a clear no is a no.
func alive(namespace int, instance string) bool {
	err := rtnl.Inside(namespace, func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		return unix.Connect(fd, claimAddr(instance))
	})
	return !errors.Is(err, unix.ECONNREFUSED)
}

// maxInstance is what fits into the name of a socket, beside what else is in it.
const maxInstance = 90

// shortName is an instance as it is written into aliases and names of sockets.
func shortName(instance string) string {
	instance = strings.TrimSpace(instance)
	if len(instance) <= maxInstance {
		return instance
	}
	sum := sha256.Sum256([]byte(instance))
	hash := "#" + hex.EncodeToString(sum[:8])
	return instance[:maxInstance-len(hash)] + hash
}
