package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"flannel/lab/cgroup"
)

func status(args []string) int {
	fs := newFlags("status", "status [flags]", "Shows the hosts of a lab.")
	p, code, ok := parsePlace(fs, args)
	if !ok {
		return code
	}
	return showStatus(p)
}

// parsePlace reads the flags of a command that takes only the name of a lab.
func parsePlace(fs *flag.FlagSet, args []string) (p place, code int, ok bool) {
	name := fs.String("name", defaultName, "`name` of the lab")
	if _, code, ok = parse(fs, args, 0); !ok {
		return p, code, false
	}
	p, err := placeOf(*name)
	if err != nil {
		return p, fail(2, err), false
	}
	return p, 0, true
}

func showStatus(p place) int {
	var hosts []hostStatus
	if err := p.ask("/status", &hosts); err != nil {
		return fail(1, err)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "HOST\tUPLINK\tSUBNET\tREADY\tPODS")
	for _, h := range hosts {
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
	return fail(1, p.enter(positional[0], []string{"--user", "--pid", "--net", "--uts", "--mount"}, cmd))
}

// enter replaces this process by a command in namespaces of a node, each with
// the flag of nsenter. It returns only with an error.
func (p place) enter(node string, flags, cmd []string) error {
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return errors.New("nsenter is missing: install util-linux")
	}
	var spaces map[string]string
	if err := p.ask("/namespaces/"+node, &spaces); err != nil {
		return err
	}
	pid, _, err := p.running()
	if err != nil {
		return err
	}
	args := []string{nsenter}
	for _, flag := range flags {
		// The lab names the files as they are called inside its sandbox.
		if path, ok := spaces[flag]; ok {
			args = append(args, fmt.Sprintf("%s=/proc/%d/root%s", flag, pid, path))
		}
	}
	if slices.Contains(flags, "--pid") {
		args = append(args, fmt.Sprintf("--pid=/proc/%d/ns/pid", pid))
	}
	// Nobody may enter the user namespace that he is in. In another one groups
	// cannot be set, and the user is root already.
	user := fmt.Sprintf("/proc/%d/ns/user", pid)
	if slices.Contains(flags, "--user") && !sameFile(user, "/proc/self/ns/user") {
		args = append(args, "--user="+user, "--preserve-credentials")
	}
	args = append(append(args, "--"), cmd...)
	return fmt.Errorf("run nsenter: %w", syscall.Exec(nsenter, args, os.Environ()))
}

func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

func down(args []string) int {
	fs := newFlags("down", "down [flags]", "Ends a lab. A lab that is not up is no error.")
	p, code, ok := parsePlace(fs, args)
	if !ok {
		return code
	}
	wasUp, err := p.end()
	if err != nil {
		return fail(1, err)
	}
	if !wasUp {
		fmt.Printf("lab %q is not up\n", p.name)
	}
	return 0
}

// patience is how long a lab may take to end by itself.
const patience = 20 * time.Second

// end ends the lab of this place and waits until everything is gone.
func (p place) end() (wasUp bool, err error) {
	if pid, err := p.holder(); err != nil || pid == 0 {
		p.clear()
		return false, err
	}
	_, s, err := p.running()
	if err == nil {
		err = s.End(patience)
	}
	p.clear()
	return true, errors.Join(err, cgroup.Sweep(context.Background()))
}
