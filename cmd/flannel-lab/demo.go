package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/vishvananda/netlink"

	"flannel/internal/ipfam"
	"flannel/lab"
	"flannel/lab/sandbox"
)

func demo(args []string) int {
	var s shape
	fs := newFlags("demo", "demo [flags]", "Starts hosts, shows their leases, pings every pod from every other, deletes a device and\n"+
		"watches it heal. Nothing is left behind.")
	hosts := fs.Int("hosts", 3, "number of hosts, at least 2")
	name := fs.String("name", "", "let status and exec in under this `name` while the demo runs (default: do not)")
	timeout := fs.Duration("timeout", time.Minute, "how long each step may take")
	s.register(fs)
	if _, code, ok := parse(fs, args, 0); !ok {
		return code
	}
	o, err := s.options(*hosts)
	if err != nil {
		return fail(1, err)
	}
	if *hosts < 2 {
		return fail(2, fmt.Errorf("demo: --hosts %d: pods of at least 2 hosts are needed", *hosts))
	}
	var files []*os.File
	if *name != "" && sandbox.Outside() {
		p, err := placeOf(*name)
		if err != nil {
			return fail(2, err)
		}
		f, err := p.open()
		if err != nil {
			return fail(1, err)
		}
		defer p.clear()
		defer f.Close()
		files = append(files, f)
	}
	code, err := sandbox.Run(func() int {
		d := demonstration{out: os.Stdout, options: o, timeout: *timeout, named: *name != ""}
		return d.runInside()
	}, files...)
	if err != nil {
		return fail(1, err)
	}
	return code
}

// demonstration is one run of the demo.
type demonstration struct {
	out     io.Writer
	options lab.Options
	timeout time.Duration
	// named means that other commands may ask for this lab.
	named bool
}

func (d *demonstration) runInside() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// After the first signal the next one ends the program at once.
	context.AfterFunc(ctx, stop)
	start := time.Now()
	err := d.show(ctx)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(d.out, "\nInterrupted. Nothing is left behind.")
		return 130
	case err != nil:
		fmt.Fprintln(d.out)
		return fail(1, err)
	}
	fmt.Fprintf(d.out, "\nEverything works. It took %s, and nothing is left behind.\n", seconds(time.Since(start)))
	return 0
}

func (d *demonstration) show(ctx context.Context) (err error) {
	release, err := lockPassed()
	if err != nil {
		return err
	}
	defer release()
	fmt.Fprintf(d.out, "A cluster of %d hosts, in namespaces of this process.\n\n", d.options.Hosts)
	start := time.Now()
	l, err := lab.New(ctx, d.options)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w\n%s", err, logTails(l))
		}
		err = errors.Join(err, l.Close())
	}()
	if d.named {
		listener, err := listen()
		if err != nil {
			return err
		}
		serving, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = serve(serving, listener, l)
		}()
		defer func() { stop(); <-done }()
	}
	fmt.Fprintf(d.out, "  etcd and the hosts are there after %s\n", seconds(time.Since(start)))
	for _, step := range []func(context.Context, *lab.Lab) error{d.leases, d.pings, d.heal, d.pings} {
		stepCtx, cancel := context.WithTimeout(ctx, d.timeout)
		err := step(stepCtx, l)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// leases starts flanneld everywhere and shows what each host got.
func (d *demonstration) leases(ctx context.Context, l *lab.Lab) error {
	start := time.Now()
	if err := l.Up(ctx); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "  flanneld is ready on all of them after another %s\n\n", seconds(time.Since(start)))
	w := tabwriter.NewWriter(d.out, 2, 0, 3, ' ', 0)
	fmt.Fprintln(w, "HOST\tUPLINK\tLEASE\tMTU\tPOD")
	for _, h := range l.Hosts {
		e, err := h.Env()
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", h.Name, addrs(h.Addr), ipfam.Join(e.Masked()), e.MTU, addrs(h.Pods()[0].Addr))
	}
	return w.Flush()
}

// pings shows how long every pod needs to every other.
func (d *demonstration) pings(ctx context.Context, l *lab.Lab) error {
	// flanneld is ready after its first pass; the last hosts may have come
	// after that of the first.
	if err := l.WaitConnected(ctx); err != nil {
		return err
	}
	m := l.PingAll(ctx)
	fmt.Fprintf(d.out, "\nEvery pod pings every other:\n\n%s", m)
	return m.Err()
}

// heal deletes the overlay's device on the last host and waits until it is
// back and traffic flows.
func (d *demonstration) heal(ctx context.Context, l *lab.Lab) error {
	first, broken := l.Hosts[0], l.Hosts[len(l.Hosts)-1]
	device, err := overlayDevice(broken)
	if err != nil || device == nil {
		return err
	}
	from, to := first.Pods()[0], broken.Pods()[0]
	name := device.Attrs().Name
	series, err := from.StartPing(addrBehind(to, name), 10*time.Millisecond)
	if err != nil {
		return err
	}
	defer series.Stop()
	fmt.Fprintf(d.out, "\nDelete %s on %s, while %s pings %s every 10 ms:\n\n", name, broken.Name, from.Name, to.Name)
	start := time.Now()
	if err := broken.Handle.LinkDel(device); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	if err := waitForDevice(ctx, broken, name); err != nil {
		return err
	}
	back := time.Since(start)
	if err := l.WaitConnected(ctx); err != nil {
		return err
	}
	all := time.Since(start)
	got := series.Stop()
	w := tabwriter.NewWriter(d.out, 2, 0, 3, ' ', 0)
	fmt.Fprintf(w, "  %s is back after\t%s\t\n", name, seconds(back))
	fmt.Fprintf(w, "  all pods reach each other after\t%s\t\n", seconds(all))
	fmt.Fprintf(w, "  longest silence of the ping\t%s\t%d of %d pings lost\n", seconds(got.LongestGap), got.Lost, got.Sent)
	return w.Flush()
}

// overlayDevice returns the first device of the overlay, nil when the backend
// has none.
func overlayDevice(h *lab.Host) (netlink.Link, error) {
	links, err := h.Handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces of %s: %w", h.Name, err)
	}
	for _, link := range links {
		if strings.HasPrefix(link.Attrs().Name, "flannel") {
			return link, nil
		}
	}
	return nil, nil
}

// addrBehind returns the pod's address in the family that a device carries.
func addrBehind(p *lab.Pod, device string) netip.Addr {
	if a := p.Addr(ipfam.V4); a.IsValid() && !strings.HasPrefix(device, "flannel-v6") {
		return a
	}
	return p.Addr(ipfam.V6)
}

func waitForDevice(ctx context.Context, h *lab.Host, name string) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := h.Handle.LinkByName(name); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s did not come back on %s: %w", name, h.Name, ctx.Err())
		}
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
