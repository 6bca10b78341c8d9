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

	"golang.org/x/sys/unix"

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
	fs.DurationVar(&u.timeout, "timeout", time.Minute, "how long flanneld may take to get ready")
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
	c, err := p.claim()
	if errors.Is(err, errBusy) {
		return fail(1, fmt.Errorf("%w; end it with flannel-lab down --name %s", err, u.name))
	}
	if err != nil {
		return fail(1, err)
	}
	if err := startHolder(c, args); err != nil {
		c.release()
		return fail(1, err)
	}
	c.keep()
	if u.options.Kubelets {
		return showCluster(p)
	}
	return showStatus(p)
}

// startHolder starts hold in a detached sandbox and waits until it is ready.
func startHolder(c *claim, args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ours, theirs, err := reportPipe()
	if err != nil {
		return err
	}
	defer ours.Close()
	p, err := sandbox.Start(sandbox.Options{
		Args:   append([]string{os.Args[0], holdCommand}, args...),
		Files:  append(c.files(), theirs),
		Stdout: theirs, Stderr: theirs, Detach: true,
	})
	theirs.Close()
	if err != nil {
		return err
	}
	cancel := context.AfterFunc(ctx, func() { _ = p.Signal(syscall.SIGTERM) })
	defer cancel()
	err = c.setPID(p.PID())
	if err == nil {
		err = awaitReport(ours)
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		_ = p.Signal(syscall.SIGTERM)
		p.Wait()
		err = errors.Join(err, cgroup.Sweep(context.Background()))
	}
	return err
}

// reportPipe returns the two ends of a connection: hold reports on one, and
// sees by its end that up is gone.
func reportPipe() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a connection to the holder: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "report"), os.NewFile(uintptr(fds[1]), "report"), nil
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
	files := sandbox.Files()
	if len(files) != 3 {
		return fail(1, fmt.Errorf("%d files passed, want 3", len(files)))
	}
	// The lock stays open as long as the lab lives.
	defer files[0].Close()
	socket, report := files[1], files[2]
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()

	l, err := bringUp(ctx, u, report)
	if err != nil {
		fmt.Fprintln(report, err)
		return 1
	}
	defer l.Close()
	if err := sayReady(report); err != nil {
		return 1
	}
	_ = serve(ctx, socket, l)
	return 0
}

// bringUp makes the lab and gives up when up is gone meanwhile.
func bringUp(ctx context.Context, u upFlags, report *os.File) (*lab.Lab, error) {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	// It ends with up, which closes its end of the report in any case.
	go func() {
		_, _ = report.Read(make([]byte, 1))
		cancel()
	}()
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

// sayReady reports success and leaves the report: nobody reads it further, and
// a write to it would be fatal.
func sayReady(report *os.File) error {
	if _, err := fmt.Fprintln(report, readyLine); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return nil
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
