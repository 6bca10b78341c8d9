package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"flannel/internal/testkit/assets"
	"flannel/lab"
)

// measure is one thing to find out. It may need several rounds.
type measure struct {
	name string
	// lasts is how long it takes, about.
	lasts time.Duration
	run   func(b *bench, ctx context.Context) ([]row, error)
	// asked means that it is measured only if it is named.
	asked bool
}

// measures lists everything in the order in which it is measured: the later
// ones use the daemon that the earlier ones have started.
func measures() []measure {
	return []measure{
		{"join", 10 * time.Second, (*bench).join, false},
		{"further", 12 * time.Second, (*bench).further, false},
		{"resync", 8 * time.Second, (*bench).resync, false},
		{"idle", 26 * time.Second, (*bench).idle, false},
		{"probe", 100 * time.Second, (*bench).probe, false},
		{"foreign", 15 * time.Second, (*bench).foreign, false},
		{"burst", 10 * time.Second, (*bench).burst, false},
		{"scale", 115 * time.Second, (*bench).scale, false},
		{"heal", 30 * time.Second, (*bench).heal, false},
		{"hostgw", 10 * time.Second, (*bench).hostgw, false},
		{"ondemand", 30 * time.Second, (*bench).ondemand, false},
		{"kube", 45 * time.Second, (*bench).kube, false},
		{"rules", 140 * time.Second, (*bench).rules, false},
		{"cni", 2 * time.Second, (*bench).cni, false},
		{"throughput", 190 * time.Second, (*bench).throughput, false},
		{"fleet", 40 * time.Minute, (*bench).fleet, true},
	}
}

func names() []string {
	var out []string
	for _, m := range measures() {
		out = append(out, m.name)
	}
	return out
}

// measures returns what was asked for.
func (s settings) measures() []measure {
	return slices.DeleteFunc(measures(), func(m measure) bool {
		if len(s.only) == 0 {
			return m.asked
		}
		return !slices.Contains(s.only, m.name)
	})
}

func known(name string) bool { return slices.Contains(names(), name) }

// bench is one run.
type bench struct {
	settings
	binaries lab.Binaries
	// root is the folder of the repository.
	root     string
	progress *progress
	// crowd is the large network, nil until a measure needs it.
	crowd *crowd
}

func newBench(s settings, progress io.Writer) (*bench, error) {
	b := &bench{settings: s, progress: newProgress(progress, s.measures())}
	etcd, err := assets.Path("etcd")
	if err != nil {
		return nil, err
	}
	b.root = filepath.Dir(filepath.Dir(etcd))
	b.binaries = lab.Binaries{Etcd: etcd, Flanneld: filepath.Join(b.root, "bin", "flanneld")}
	if s.flanneld != "" {
		if b.binaries.Flanneld, err = filepath.Abs(s.flanneld); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(b.binaries.Flanneld); err != nil {
		return nil, fmt.Errorf("%w: run make build", err)
	}
	return b, nil
}

// run measures what was asked for. What fails does not stop the rest.
func (b *bench) run(ctx context.Context) (rows []row, err error) {
	stop := b.progress.show()
	defer stop()
	for _, m := range b.measures() {
		b.progress.next(m.name)
		found, failed := m.run(b, ctx)
		rows = append(rows, found...)
		if ctx.Err() != nil {
			return rows, ctx.Err()
		}
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", m.name, failed))
		}
	}
	return rows, err
}

// roundsOr returns how many rounds to make where n are enough by default.
func (b *bench) roundsOr(n int) int {
	if b.rounds > 0 {
		return b.rounds
	}
	return n
}

// close ends what the measures have left running.
func (b *bench) close() error {
	if b.crowd == nil {
		return nil
	}
	c := b.crowd
	b.crowd = nil
	return c.close()
}

// patience bounds every wait; nothing that works takes so long.
const patience = time.Minute

// until polls a condition. The interval decides how precisely the moment is known
// at which it becomes true.
func until(ctx context.Context, what string, interval time.Duration, check func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		ok, err := check()
		if ok {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s: not within %s", what, patience), err)
		}
	}
}
