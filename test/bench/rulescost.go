package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"flannel/internal/loop"
	"flannel/lab"
)

// flannelPrograms is how many programs flannel runs each resyncPeriod in dual
// stack.
const flannelPrograms = 20

// lookPeriods is how many looks at the rules are measured.
const lookPeriods = 4

// cost measures the CPU time that the daemon and its programs use per resync
// period, beside many rules of others and while somebody changes nf_tables all
// the time, and how many programs it runs; and the CPU time of the programs that
// flannel runs in the same time.
func (h filterHost) cost(ctx context.Context, mode string) ([]row, error) {
	if err := h.addForeign(ctx, mode); err != nil {
		return nil, err
	}
	var theirs []float64
	for range 3 {
		used, err := h.asFlannel(mode)
		if err != nil {
			return nil, err
		}
		theirs = append(theirs, inMilliseconds(used))
	}
	used, err := h.looks(ctx)
	if err != nil {
		return nil, err
	}
	programs, err := h.programs(ctx)
	if err != nil {
		return nil, err
	}
	limit := median(theirs)
	name := fmt.Sprintf("rules looked at each %s beside %d others, iptables-%s", resyncPeriod, foreignRules, mode)
	return []row{
		{Measure: name, Unit: milliseconds, Samples: []float64{inMilliseconds(used)}, Limit: &limit},
		{Measure: "  programs run for that", Unit: count, Samples: []float64{programs}, Limit: atMost(flannelPrograms),
			Flannel: strconv.Itoa(flannelPrograms)},
	}, nil
}

// looks returns the CPU time of the daemon and its programs per resyncPeriod.
func (h filterHost) looks(ctx context.Context) (time.Duration, error) {
	p := process(h.Flanneld().PID())
	before, err := p.withChildren()
	if err != nil {
		return 0, err
	}
	if err := h.churn(ctx, lookPeriods*resyncPeriod); err != nil {
		return 0, err
	}
	after, err := p.withChildren()
	return (after - before) / lookPeriods, err
}

// churn changes nf_tables once a second, so that each look has to read.
func (h filterHost) churn(ctx context.Context, during time.Duration) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for end := time.Now().Add(during); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := h.each(ctx, "nft add table ip other; nft delete table ip other"); err != nil {
			return err
		}
	}
	return nil
}

// programs returns how many programs a daemon runs per resyncPeriod once its
// rules are in place. It finds programs in their place that first write a line.
func (h filterHost) programs(ctx context.Context) (perPeriod float64, err error) {
	dir, err := os.MkdirTemp("", "bench-programs-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	runs := filepath.Join(dir, "runs")
	if err := countingPrograms(dir, runs); err != nil {
		return 0, err
	}
	if err := h.Stop(); err != nil {
		return 0, err
	}
	d, err := h.StartDaemon(lab.DaemonOptions{
		Name: "counted", Flags: h.Flags, Env: []string{"PATH=" + dir + ":" + os.Getenv("PATH")},
	})
	if err != nil {
		return 0, err
	}
	ready, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := d.WaitReady(ready); err != nil {
		return 0, err
	}
	// What is looked at once, at the start, is over with the first look.
	if err := loop.Wait(ctx, resyncPeriod); err != nil {
		return 0, err
	}
	before, err := os.ReadFile(runs)
	if err != nil {
		return 0, err
	}
	if err := h.churn(ctx, lookPeriods*resyncPeriod); err != nil {
		return 0, err
	}
	after, err := os.ReadFile(runs)
	lines := strings.Count(string(after), "\n") - strings.Count(string(before), "\n")
	return float64(lines) / lookPeriods, errors.Join(err, d.Stop())
}

// countingPrograms makes, for each program of iptables, one that writes a line
// and becomes it.
func countingPrograms(dir, runs string) error {
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-nft", "-legacy"} {
			for _, action := range []string{"", "-save", "-restore"} {
				program := name + suffix + action
				path, err := exec.LookPath(program)
				if err != nil {
					return err
				}
				script := fmt.Sprintf("#!/bin/sh\necho %s >>%s\nexec %s \"$@\"\n", program, runs, path)
				if err := os.WriteFile(filepath.Join(dir, program), []byte(script), 0o755); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// addForeign writes rules as kube-proxy has them, in chains of their own.
func (h filterHost) addForeign(ctx context.Context, mode string) error {
	const chains = 200
	var b strings.Builder
	b.WriteString("*nat\n")
	for i := range chains {
		fmt.Fprintf(&b, ":SERVICE-%d - [0:0]\n", i)
	}
	for i := range foreignRules {
		fmt.Fprintf(&b, "-A SERVICE-%d -d 10.96.%d.%d/32 -p tcp -m tcp --dport 80 -j RETURN\n", i%chains, i/256%256, i%256)
	}
	b.WriteString("COMMIT\n")
	cmd, err := h.Start(ctx, []string{"iptables-" + mode + "-restore", "--noflush"}, func(cmd *exec.Cmd) error {
		cmd.Stdin = strings.NewReader(b.String())
		return nil
	})
	if err != nil {
		return err
	}
	return cmd.Wait()
}

// asFlannel runs 20 checks of single rules, as flannel does each 5 s in dual
// stack, and returns the CPU time that they use.
func (h filterHost) asFlannel(mode string) (time.Duration, error) {
	var used time.Duration
	for i := range flannelPrograms {
		program := []string{"iptables", "ip6tables"}[i%2] + "-" + mode
		table, chain := "nat", "FLANNEL-POSTRTG"
		if i >= 14 {
			table, chain = "filter", "FLANNEL-FWD"
		}
		cmd, err := h.Start(context.Background(), []string{program, "-t", table, "-C", chain, "-j", "RETURN", "--wait"}, func(*exec.Cmd) error { return nil })
		if err != nil {
			return 0, err
		}
		_ = cmd.Wait() // there is no such rule, which costs the same
		used += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	return used, nil
}

// withChildren returns the CPU time of a process and of the programs that it
// has waited for.
func (p process) withChildren() (time.Duration, error) {
	own, err := p.cpu()
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	const tick = 10 * time.Millisecond
	var sum int
	// Fields 16 and 17, counted from 1; the third comes first here.
	for _, field := range strings.Fields(rest)[13:15] {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, fmt.Errorf("read the CPU time of the children of process %d: %w", p, err)
		}
		sum += n
	}
	return own + time.Duration(sum)*tick, nil
}
