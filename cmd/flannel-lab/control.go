package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"flannel/lab/cgroup"
)

func status(args []string) int {
	fs := newFlags("status", "status [flags]", "Shows the hosts of a lab.")
	name := fs.String("name", defaultName, "`name` of the lab")
	if _, code, ok := parse(fs, args, 0); !ok {
		return code
	}
	p, err := placeOf(*name)
	if err != nil {
		return fail(2, err)
	}
	return showStatus(p)
}

func showStatus(p place) int {
	got, _, err := p.ask(request{})
	if err != nil {
		return fail(1, err)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "HOST\tUPLINK\tSUBNET\tREADY\tPODS")
	for _, h := range got.Hosts {
		ready := "yes"
		if h.Missing != "" {
			ready = h.Missing
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", h.Name, h.Uplink, h.Subnet, ready, h.Pods)
	}
	w.Flush()
	return 0
}

// execute replaces this process by nsenter, which keeps the terminal.
func execute(args []string) int {
	fs := newFlags("exec", "exec [flags] HOST -- CMD [ARG...]", "Runs a command on a host, or in a pod when HOST is like host1/pod1.")
	name := fs.String("name", defaultName, "`name` of the lab")
	var cmd []string
	if i := slices.Index(args, "--"); i >= 0 {
		args, cmd = args[:i], args[i+1:]
	}
	positional, code, ok := parse(fs, args, 1)
	if !ok {
		return code
	}
	if len(cmd) == 0 {
		return fail(2, errors.New("exec: no command; write it after --, like: flannel-lab exec host1 -- ip route"))
	}
	p, err := placeOf(*name)
	if err != nil {
		return fail(2, err)
	}
	_, spaces, err := p.ask(request{Enter: positional[0]})
	if err != nil {
		return fail(1, err)
	}
	return fail(1, enter(spaces, cmd))
}

// enterFlags are nsenter's flags per kind of namespace.
var enterFlags = map[int]string{
	unix.CLONE_NEWUSER: "--user",
	unix.CLONE_NEWPID:  "--pid",
	unix.CLONE_NEWNET:  "--net",
	unix.CLONE_NEWUTS:  "--uts",
	unix.CLONE_NEWNS:   "--mount",
}

// enter returns only with an error.
func enter(spaces []namespace, cmd []string) error {
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return errors.New("nsenter is missing: install util-linux")
	}
	args := []string{nsenter}
	for _, s := range spaces {
		fd := s.file.Fd()
		if s.kind == unix.CLONE_NEWUSER && isOwnUser(s.file) {
			continue // nobody may enter the user namespace he is in
		}
		if _, err := unix.FcntlInt(fd, unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keep a namespace open: %w", err)
		}
		args = append(args, fmt.Sprintf("%s=/proc/self/fd/%d", enterFlags[s.kind], fd))
		if s.kind == unix.CLONE_NEWUSER {
			// Groups cannot be set there, and the user is root already.
			args = append(args, "--preserve-credentials")
		}
	}
	args = append(append(args, "--"), cmd...)
	return fmt.Errorf("run nsenter: %w", syscall.Exec(nsenter, args, os.Environ()))
}

func isOwnUser(f *os.File) bool {
	their, err := f.Stat()
	if err != nil {
		return false
	}
	own, err := os.Stat("/proc/self/ns/user")
	return err == nil && os.SameFile(their, own)
}

func down(args []string) int {
	fs := newFlags("down", "down [flags]", "Ends a lab. A lab that is not up is no error.")
	name := fs.String("name", defaultName, "`name` of the lab")
	if _, code, ok := parse(fs, args, 0); !ok {
		return code
	}
	p, err := placeOf(*name)
	if err != nil {
		return fail(2, err)
	}
	wasUp, err := p.end()
	if err != nil {
		return fail(1, err)
	}
	if !wasUp {
		fmt.Printf("lab %q is not up\n", *name)
	}
	return 0
}

// patience is how long a lab may take to end by itself.
const patience = 20 * time.Second

// end ends the lab of this place and waits until everything is gone.
func (p place) end() (wasUp bool, err error) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		lock, err := p.lockNow()
		if errors.Is(err, errBusy) {
			wasUp = true
			if err := p.signal(s); err != nil {
				return wasUp, err
			}
			lock, err = p.waitUnlocked(patience)
		}
		if err == nil {
			(&claim{place: p, lock: lock}).release()
			return wasUp, cgroup.Sweep(context.Background())
		}
		if !errors.Is(err, errBusy) {
			return wasUp, err
		}
	}
	return wasUp, fmt.Errorf("lab %q does not end", p.name)
}

// signal sends a signal to the process that ends the lab. The lock is held, so
// the number cannot belong to another process.
func (p place) signal(s syscall.Signal) error {
	pid, ok := p.pid()
	if !ok {
		return fmt.Errorf("lab %q is still starting; try again", p.name)
	}
	if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("end lab %q: %w", p.name, err)
	}
	return nil
}

// waitUnlocked waits until no process of the lab is left, and returns its lock.
func (p place) waitUnlocked(limit time.Duration) (*os.File, error) {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		lock, err := p.lockNow()
		if err == nil || !errors.Is(err, errBusy) || !time.Now().Before(deadline) {
			return lock, err
		}
		<-tick.C
	}
}
