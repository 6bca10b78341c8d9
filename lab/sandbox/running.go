package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Running is a sandbox that another process has started.
type Running struct {
	// Dir is its Dir, as it is seen from outside.
	Dir string
	// init is its PID 1.
	init int
}

// Of returns the sandbox in which a process is the program inside.
func Of(pid int) (Running, error) {
	var r Running
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return r, fmt.Errorf("find the sandbox of process %d: %w", pid, err)
	}
	_, parent, _ := strings.Cut(string(status), "\nPPid:")
	if _, err := fmt.Sscan(parent, &r.init); err != nil {
		return r, fmt.Errorf("find the parent of process %d: %w", pid, err)
	}
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return r, fmt.Errorf("find the sandbox of process %d: %w", pid, err)
	}
	for variable := range bytes.SplitSeq(environment, []byte{0}) {
		if dir, ok := strings.CutPrefix(string(variable), dirVar+"="); ok {
			r.Dir = fmt.Sprintf("/proc/%d/root%s", pid, dir)
			return r, nil
		}
	}
	return r, fmt.Errorf("process %d is in no sandbox", pid)
}

// End ends everything in the sandbox and waits for it: with SIGTERM to the
// program inside, and with SIGKILL if that takes longer than patience.
func (r Running) End(patience time.Duration) error {
	fd, err := unix.PidfdOpen(r.init, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", r.init, err)
	}
	defer unix.Close(fd)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end the sandbox: %w", err)
		}
		if ended, err := waitReadable(fd, patience); ended || err != nil {
			return err
		}
	}
	return fmt.Errorf("the sandbox did not end within %s of SIGKILL", patience)
}

// waitReadable waits for an event of a descriptor; the descriptor of a process
// is readable when that has ended.
func waitReadable(fd int, limit time.Duration) (bool, error) {
	for deadline := time.Now().Add(limit); ; {
		left := max(0, time.Until(deadline))
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}
