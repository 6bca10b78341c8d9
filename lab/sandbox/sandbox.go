// Package sandbox runs the current program a second time inside network,
// mount and PID namespaces of its own, so that whatever it makes there
// vanishes with it.
package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// ErrUnavailable means that this kernel or this user does not get namespaces.
var ErrUnavailable = errors.New("no rights to make namespaces; run as root, or allow unprivileged user namespaces")

// The environment variables that tell a stage of the program what it is.
const (
	stageVar = "FLANNEL_LAB_STAGE"
	filesVar = "FLANNEL_LAB_FILES"
)

// A stage of the program. Init is PID 1 of the sandbox: it prepares the
// mounts, starts inside, and reaps; detached is the same without a lifeline.
const (
	stageOutside  = ""
	stageInit     = "init"
	stageDetached = "detached"
	stageInside   = "inside"
)

// readStage returns the stage of this process and the network namespace it was
// started from. The variable is taken away, so that programs started by this
// one are outside again.
func readStage() (stage, outerNet string) {
	stage, outerNet, _ = strings.Cut(os.Getenv(stageVar), ":")
	os.Unsetenv(stageVar)
	// A variable that leaked from elsewhere must never make us take the
	// host's network for a sandbox.
	if own, err := os.Readlink("/proc/self/ns/net"); err != nil || own == outerNet {
		return stageOutside, ""
	}
	return stage, outerNet
}

// Options define how Start runs the program.
type Options struct {
	// Args are the arguments inside, with the program's name; nil means the
	// same as outside.
	Args []string
	// Files are passed to the program inside, which gets them from Files.
	Files []*os.File
	// Stdin, Stdout and Stderr; nil means /dev/null.
	Stdin, Stdout, Stderr *os.File
	// Detach lets the sandbox outlive the caller, in a session of its own.
	Detach bool
}

// Process is a running sandbox.
type Process struct {
	cmd *exec.Cmd
	// lifeline is held open by the caller; its end is the sandbox's end. A
	// detached sandbox has none.
	lifeline *os.File
}

// Start starts this program again in a sandbox. Unless it is detached the
// sandbox dies with the calling thread, so the caller holds
// runtime.LockOSThread. The error is ErrUnavailable when there are no rights.
func Start(o Options) (*Process, error) {
	outerNet, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("read own network namespace: %w", err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make the lifeline of the sandbox: %w", err)
	}
	defer read.Close()
	if o.Detach {
		write.Close()
	}
	for _, user := range userNamespaceFirst() {
		cmd := command(o, outerNet, read)
		cmd.SysProcAttr = attributes(o.Detach, user)
		if err = cmd.Start(); err == nil {
			return &Process{cmd: cmd, lifeline: write}, nil
		}
	}
	write.Close()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		return nil, fmt.Errorf("%w (%w)", ErrUnavailable, err)
	}
	return nil, fmt.Errorf("start the sandbox: %w", err)
}

// userNamespaceFirst lists what to try: root needs no user namespace, unless
// it is root of a container without rights.
func userNamespaceFirst() []bool {
	if os.Geteuid() == 0 {
		return []bool{false, true}
	}
	return []bool{true}
}

func command(o Options, outerNet string, lifeline *os.File) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = o.Args
	if cmd.Args == nil {
		cmd.Args = os.Args
	}
	// An interface holding a nil *os.File would not be nil.
	if o.Stdin != nil {
		cmd.Stdin = o.Stdin
	}
	if o.Stdout != nil {
		cmd.Stdout = o.Stdout
	}
	if o.Stderr != nil {
		cmd.Stderr = o.Stderr
	}
	cmd.Env = stageEnv(stageInit, outerNet, len(o.Files))
	cmd.ExtraFiles = append([]*os.File{lifeline}, o.Files...)
	if o.Detach {
		cmd.Env = stageEnv(stageDetached, outerNet, len(o.Files))
		cmd.ExtraFiles = o.Files
	}
	return cmd
}

func stageEnv(stage, outerNet string, files int) []string {
	return append(os.Environ(),
		stageVar+"="+stage+":"+outerNet,
		filesVar+"="+strconv.Itoa(files))
}

func attributes(detach, user bool) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		// A group of its own: signals of the terminal reach the outer
		// program only, which passes each on once.
		Setpgid:   !detach,
		Setsid:    detach,
		Pdeathsig: syscall.SIGKILL,
	}
	if detach {
		a.Pdeathsig = 0
	}
	if user {
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	return a
}

// PID returns the process ID of the sandbox's PID 1, as seen from outside.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal to the program inside, except SIGKILL, which ends the
// sandbox with everything in it.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Wait waits until everything in the sandbox has ended and returns the exit
// code of the program inside.
func (p *Process) Wait() int {
	err := p.cmd.Wait()
	p.lifeline.Close()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode()
	case errors.As(err, &exit):
		return 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
	}
	return 1
}

// Outside reports whether Run, called next, would start a sandbox: this process
// was not started by one.
func Outside() bool { return os.Getenv(stageVar) == "" }

// Run runs inside in a sandbox, from main or TestMain, and returns its exit
// code. The program is started again with the same arguments; signals are
// passed on. Files are passed to the program inside, which gets them from
// Files. The error is ErrUnavailable when there are no rights.
func Run(inside func() int, files ...*os.File) (int, error) {
	switch stage, outerNet := readStage(); stage {
	case stageInit:
		go watchLifeline()
		return runInit(outerNet, lifelineFD+1), nil
	case stageDetached:
		return runInit(outerNet, lifelineFD), nil
	case stageInside:
		return inside(), nil
	}
	// The sandbox dies with this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	p, err := Start(Options{Files: files, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		signal.Reset(forwarded...)
		return 1, err
	}
	stop := forward(signals, p.Signal)
	defer stop()
	return p.Wait(), nil
}

// forwarded are the signals that a person or a service manager sends.
var forwarded = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
	syscall.SIGUSR1, syscall.SIGUSR2,
}

// forward passes signals on until stop is called. A signal to a process that
// has ended is ignored.
func forward(signals <-chan os.Signal, send func(os.Signal) error) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case s := <-signals:
				_ = send(s)
			case <-quit:
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}
