// Package child runs a program beside a test or a lab, until it ends or is
// ended.
package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// stopTimeout is how long a program may take to end by itself.
const stopTimeout = 10 * time.Second

// Process is a program that was started.
type Process struct {
	cmd *exec.Cmd
	// exited is closed when the program has ended; cmd has its state then.
	exited chan struct{}
}

// Start runs a program that dies with this process. Its output is appended to
// a file. The kernel sends the death signal when the thread that started the
// program ends, so one thread is kept for as long as the program runs.
func Start(path string, args []string, logFile string) (*Process, error) {
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	exited := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			<-exited
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return watch(cmd, exited), nil
}

// Watch takes charge of a command that was started.
func Watch(cmd *exec.Cmd) *Process { return watch(cmd, make(chan struct{})) }

func watch(cmd *exec.Cmd, exited chan struct{}) *Process {
	go func() {
		defer close(exited)
		_ = cmd.Wait() // the state is in cmd.ProcessState
	}()
	return &Process{cmd: cmd, exited: exited}
}

// PID returns the process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the program has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Running reports whether the program has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// ExitCode returns the exit code of a program that has ended, otherwise -1.
func (p *Process) ExitCode() int {
	if p.Running() {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// Terminate ends the program with SIGTERM, and with SIGKILL if that takes too
// long, which is an error.
func (p *Process) Terminate() error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopTimeout):
		return errors.Join(fmt.Errorf("still running %s after SIGTERM", stopTimeout), p.Kill())
	}
}

// Kill ends the program at once.
func (p *Process) Kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.exited
	return nil
}

// Pause stops the program from running while its connections stay open.
func (p *Process) Pause() error { return p.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (p *Process) Resume() error { return p.signal(syscall.SIGCONT) }

// signal counts a program that has ended as success.
func (p *Process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.cmd.Path, err)
	}
	return nil
}
