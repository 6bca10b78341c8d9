package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"

	"flannel/internal/testkit/child"
	"flannel/lab/node"
)

// process is a program on a node that can be started again and again. Its
// output is appended to a file.
type process struct {
	name    string
	node    *node.Node
	logPath string

	// mu guards started, the program of the last start; nil before the first.
	mu      sync.Mutex
	started *child.Process
}

func (p *process) start(args, env []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started != nil && p.started.Running() {
		return fmt.Errorf("%s is already running on %s", p.name, p.node.Name)
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
	if err == nil {
		p.started = child.Watch(cmd)
	}
	return err
}

func (p *process) last() *child.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started
}

func (p *process) stop() error { return p.end((*child.Process).Terminate) }

func (p *process) kill() error { return p.end((*child.Process).Kill) }

func (p *process) running() bool {
	last := p.last()
	return last != nil && last.Running()
}

// end ends the program and waits for it. A program that does not run is no
// error.
func (p *process) end(how func(*child.Process) error) error {
	last := p.last()
	if last == nil {
		return nil
	}
	if err := how(last); err != nil {
		return fmt.Errorf("end %s on %s: %w", p.name, p.node.Name, err)
	}
	return nil
}

// exited returns a channel that is closed when the program of the last start
// has ended; nil before the first start.
func (p *process) exited() <-chan struct{} {
	if last := p.last(); last != nil {
		return last.Exited()
	}
	return nil
}

// exitCode returns the exit code of a program that has ended, otherwise -1.
func (p *process) exitCode() int {
	if last := p.last(); last != nil {
		return last.ExitCode()
	}
	return -1
}

// pid returns the process ID of the last start, 0 before it.
func (p *process) pid() int {
	if last := p.last(); last != nil {
		return last.PID()
	}
	return 0
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
