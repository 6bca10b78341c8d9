package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"flannel/lab"
	"flannel/lab/cgroup"
	"flannel/lab/sandbox"
)

// holdCommand is the internal sub-command that up runs in the sandbox.
const holdCommand = "hold"

// readyLine is what hold reports when the lab is up; anything else is an error.
const readyLine = "ready"

// upFlags are the arguments of up, and of hold.
type upFlags struct {
	name    string
	timeout time.Duration
	options lab.Options
	// pods are the programs for images, with --kubernetes.
	pods lab.Programs
}

func parseUp(args []string) (u upFlags, code int, ok bool) {
	var s shape
	fs := newFlags("up", "up N [flags]", "Starts N hosts with a flanneld and a pod each, and an etcd. They stay until flannel-lab down.\n"+
		"flanneld's log: flannel-lab exec host1 -- cat /run/log/flanneld.log\n"+
		"With --kubernetes the hosts are nodes with kubelet, containerd and kube-proxy, and flanneld is for you to apply.")
	fs.StringVar(&u.name, "name", defaultName, "`name` of the lab")
	fs.DurationVar(&u.timeout, "timeout", time.Minute, "how long flanneld may take to become ready")
	s.register(fs)
	positional, code, ok := parse(fs, args, 1)
	if !ok {
		return u, code, false
	}
	hosts, err := strconv.Atoi(positional[0])
	if err != nil {
		return u, fail(2, fmt.Errorf("up: %q is not a number of hosts", positional[0])), false
	}
	if u.options, err = s.options(hosts); err != nil {
		return u, fail(1, err), false
	}
	if u.options.Kubelets {
		if u.pods, err = s.pods(u.options.Binaries); err != nil {
			return u, fail(1, err), false
		}
	}
	return u, 0, true
}

func up(args []string) int {
	u, code, ok := parseUp(args)
	if !ok {
		return code
	}
	p, err := placeOf(u.name)
	if err != nil {
		return fail(2, err)
	}
	pid, err := p.holder()
	if err != nil {
		return fail(1, err)
	}
	if pid != 0 {
		return fail(1, fmt.Errorf("lab %q is already up; end it with flannel-lab down --name %[1]s", u.name))
	}
	if err := startHolder(p, args); err != nil {
		p.clear()
		return fail(1, err)
	}
	if u.options.Kubelets {
		return showCluster(p)
	}
	return showStatus(p)
}

// startHolder starts hold in a detached sandbox and waits until it is ready.
func startHolder(p place, args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	file, err := p.open()
	if err != nil {
		return err
	}
	defer file.Close()
	report, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer report.Close()
	s, err := sandbox.Start(sandbox.Options{
		Args:   append([]string{os.Args[0], holdCommand}, args...),
		Files:  []*os.File{file},
		Stdout: theirs, Stderr: theirs, Detach: true,
	})
	theirs.Close()
	if err != nil {
		return err
	}
	cancel := context.AfterFunc(ctx, func() { _ = s.Signal(syscall.SIGTERM) })
	defer cancel()
	err = awaitReport(report)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		_ = s.Signal(syscall.SIGTERM)
		s.Wait()
		err = errors.Join(err, cgroup.Sweep(context.Background()))
	}
	return err
}

func awaitReport(r io.Reader) error {
	var text strings.Builder
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if lines.Text() == readyLine {
			return nil
		}
		fmt.Fprintln(&text, lines.Text())
	}
	if text.Len() == 0 {
		return errors.New("the lab ended while it started")
	}
	return errors.New(strings.TrimSpace(text.String()))
}

// hold is the life of a lab that up has started: it runs in the sandbox until
// it gets SIGTERM.
func hold(args []string) int {
	if sandbox.Outside() {
		return fail(2, errors.New("hold is for flannel-lab up only"))
	}
	code, err := sandbox.Run(func() int { return holdInside(args) })
	if err != nil {
		return fail(1, err)
	}
	return code
}

func holdInside(args []string) int {
	u, code, ok := parseUp(args)
	if !ok {
		return code
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	release, err := lockPassed()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer release()
	l, err := bringUp(ctx, u)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer l.Close()
	listener, err := listen()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	// If up is gone, this write ends the process and with it the lab.
	fmt.Println(readyLine)
	// Nobody reads further output, which must not end it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if err := serve(ctx, listener, l); err != nil {
		return 1
	}
	return 0
}

func bringUp(ctx context.Context, u upFlags) (*lab.Lab, error) {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	if u.options.Kubelets {
		var err error
		if u.options.Images, err = lab.WriteImages(sandbox.Dir(), u.pods); err != nil {
			return nil, err
		}
		return lab.New(ctx, u.options)
	}
	l, err := lab.New(ctx, u.options)
	if err != nil {
		return nil, err
	}
	if err := l.Up(ctx); err != nil {
		err = fmt.Errorf("%w\n%s", err, logTails(l))
		l.Close()
		return nil, err
	}
	return l, nil
}

// logTails returns the end of the log of each host that has one.
func logTails(l *lab.Lab) string {
	var b strings.Builder
	for _, h := range l.Hosts {
		if text := h.Flanneld().Tail(15); text != "" {
			fmt.Fprintf(&b, "%s: end of flanneld's log:\n  %s\n", h.Name, strings.ReplaceAll(text, "\n", "\n  "))
		}
	}
	return b.String()
}
