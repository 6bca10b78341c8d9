// Command faults breaks a cluster of the lab in ways that a seed draws, and
// checks after each fault that the cluster is as it should be.
//
// It runs itself again inside a sandbox, so nothing of it touches the host's
// network, and nothing of it stays behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"flannel/internal/testkit/assets"
	"flannel/lab"
	"flannel/lab/sandbox"
)

// How many hosts there may be: pods of all ping each other.
const (
	fewestHosts = 4
	mostHosts   = 10
)

// settings are the flags.
type settings struct {
	seed     uint64
	rounds   int
	long     int
	hosts    int
	first    int
	duration time.Duration
	backend  string
	store    string
	only     *regexp.Regexp
	flanneld string
}

func main() {
	s, err := parse(os.Args[1:])
	sandbox.Main("faults", err, s.inside)
}

func parse(args []string) (settings, error) {
	var s settings
	fs := flag.NewFlagSet("faults", flag.ContinueOnError)
	fs.Uint64Var(&s.seed, "seed", 0, "repeat the faults of this `number`, their order and their offsets (default: drawn and printed)")
	fs.DurationVar(&s.duration, "duration", 10*time.Minute, "start no round after this `time`")
	fs.IntVar(&s.rounds, "rounds", 0, "end after this `number` of rounds, however long they take")
	fs.IntVar(&s.hosts, "hosts", fewestHosts, "`number` of hosts")
	fs.IntVar(&s.long, "long", -1, "allow at most this `number` of rounds whose faults may take more than 40s to recover from; -1: any number")
	fs.IntVar(&s.first, "first", 1, "begin with round `number` of the seed")
	fs.StringVar(&s.backend, "backend", vxlan, "`name` of the backend: "+strings.Join(backends, ", "))
	fs.StringVar(&s.store, "store", etcd, "`name` of the store: "+strings.Join(stores, ", "))
	only := fs.String("only", "", "only faults whose name matches this `regexp`")
	fs.StringVar(&s.flanneld, "flanneld", "", "`path` of the daemon (default bin/flanneld)")
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	err := s.check(fs.Args(), *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
	}
	return s, err
}

func (s *settings) check(rest []string, only string) (err error) {
	if s.only, err = regexp.Compile(only); err != nil {
		return err
	}
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case s.rounds < 0 || s.first < 1:
		return errors.New("rounds are counted from 1")
	case s.hosts < fewestHosts || s.hosts > mostHosts:
		return fmt.Errorf("-hosts %d: from %d to %d", s.hosts, fewestHosts, mostHosts)
	case len(s.table()) == 0:
		return fmt.Errorf("no fault of backend %q and store %q has a name that matches %q", s.backend, s.store, s.only)
	}
	return nil
}

// inside runs in the sandbox and returns the exit code.
func (s settings) inside(ctx context.Context) int {
	// Drawn inside only: the outer program has the same flags.
	for s.seed == 0 {
		s.seed = rand.Uint64N(1 << 32)
	}
	if err := run(ctx, s); err != nil {
		fmt.Printf("FAIL %v\n", err)
		return 1
	}
	fmt.Println("every fault was mended in time; nothing else was lost or changed")
	return 0
}

func run(ctx context.Context, s settings) error {
	takes := s.duration.String()
	if s.rounds > 0 {
		takes = fmt.Sprintf("%d rounds, about %s", s.rounds, s.lasts())
	}
	fmt.Printf("faults: %s, seed %d, backend %s, store %s, %d hosts; round, time to recover, longest loss, faults\n",
		takes, s.seed, s.backend, s.store, s.hosts)
	b, err := binaries(s)
	if err != nil {
		return err
	}
	o := lab.Options{
		Hosts: s.hosts, Families: lab.Dual, Binaries: b,
		Backend: backendKeys(s.backend), Flags: []string{"--ip-masq"},
	}
	if s.store == kubernetes {
		o.Kubernetes = true
	} else {
		o.EtcdMembers = 3
	}
	l, err := lab.New(ctx, o)
	if err != nil {
		return err
	}
	broken := &suite{settings: s, lab: l, snapshot: filepath.Join(sandbox.Dir(), "snapshot")}
	return errors.Join(broken.run(ctx), l.Close())
}

// backendKeys are the backend's part of the network configuration. Only without
// checksum offload does the plan of vxlan set it.
func backendKeys(backend string) string {
	if backend == vxlan {
		return `{"Type": "vxlan", "ChecksumOffload": false}`
	}
	return fmt.Sprintf(`{"Type": %q}`, backend)
}

func binaries(s settings) (b lab.Binaries, err error) {
	if b, err = lab.Servers(); err != nil {
		return b, err
	}
	root, err := assets.Root()
	if err != nil {
		return b, err
	}
	b.Flanneld = filepath.Join(root, "bin", "flanneld")
	if s.flanneld != "" {
		if b.Flanneld, err = filepath.Abs(s.flanneld); err != nil {
			return b, err
		}
	}
	if _, err := os.Stat(b.Flanneld); err != nil {
		return b, fmt.Errorf("%w: run make build", err)
	}
	return b, nil
}
