package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"flannel/lab/node"
)

// grace is how long a program may take to end after SIGTERM.
const grace = 10 * time.Second

// process is a program on a node that can be started again and again. Its
// output is appended to a file.
type process struct {
	name    string
	node    *node.Node
	logPath string

	// mu guards what follows.
	mu  sync.Mutex
	cmd *exec.Cmd
	// ended is closed by the goroutine that waits for cmd.
	ended chan struct{}
}

func (p *process) start(args, env []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.runningLocked() {
		return fmt.Errorf("%s runs already on %s", p.name, p.node.Name)
	}
	var log *os.File
	cmd, err := p.node.Start(context.Background(), args, func(cmd *exec.Cmd) (err error) {
		log, err = os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.Env = append(cmd.Env, env...)
		return err
	})
	if log != nil {
		log.Close()
	}
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	p.cmd, p.ended = cmd, ended
	go func() {
		defer close(ended)
		_ = cmd.Wait() // the state is in cmd.ProcessState
	}()
	return nil
}

func (p *process) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.runningLocked()
}

func (p *process) runningLocked() bool {
	if p.ended == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// signal sends a signal to the running program and waits until it ends. A
// program that has ended already is no error.
func (p *process) signal(s os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runningLocked() {
		return nil
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s on %s: %w", p.name, p.node.Name, err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(grace):
	}
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.ended
	return fmt.Errorf("%s on %s did not end within %s of %s", p.name, p.node.Name, grace, s)
}

func (p *process) stop() error { return p.signal(syscall.SIGTERM) }

func (p *process) kill() error { return p.signal(syscall.SIGKILL) }

// exited returns a channel that is closed when the program of the last start
// has ended; nil before the first start.
func (p *process) exited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// exitCode returns the exit code of a program that has ended, -1 otherwise.
func (p *process) exitCode() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.runningLocked() {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// pid returns the process ID of the last start, 0 before it.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

func (p *process) log() string {
	text, err := p.node.ReadFile(p.logPath)
	if err != nil {
		return ""
	}
	return string(text)
}

// waitReady polls until check succeeds or the program ends.
func (p *process) waitReady(ctx context.Context, check func(context.Context) error) error {
	tick := newTicker()
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.exited():
			return fmt.Errorf("%s ended with code %d; its last lines:\n%s", p.name, p.exitCode(), lastLines(p.log(), 10))
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", p.name, ctx.Err(), err)
		}
	}
}
