package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"flannel/lab"
)

// usage is what a daemon uses.
type usage struct {
	memory, files, goroutines int
}

// Growth that is none: a heap grows until it is collected, and connections come
// and go.
const (
	freeMemory     = 24 << 20
	freeFiles      = 8
	freeGoroutines = 12
)

// frugal checks that a daemon uses no more than at the start, and no CPU.
func (s *suite) frugal(ctx context.Context, i int) error {
	daemon, name := s.lab.Hosts[i].Flanneld(), s.lab.Hosts[i].Name
	pid := daemon.PID()
	const look, tries = 200 * time.Millisecond, 25
	var used time.Duration
	var u usage
	for range tries {
		before, err := cpu(pid)
		if err != nil {
			return err
		}
		if err := pause(ctx, look); err != nil {
			return err
		}
		now, err := cpu(pid)
		if err != nil {
			return err
		}
		if used = now - before; used >= look/10 {
			continue
		}
		if u, err = usageOf(ctx, daemon); err != nil {
			return err
		}
		if !u.exceeds(s.usage[i]) {
			return nil
		}
	}
	return fmt.Errorf("%s: does not come to rest: %s of CPU in %s; %+v at the start, %+v now", name, used, look, s.usage[i], u)
}

func (u usage) exceeds(first usage) bool {
	return u.memory > first.memory+freeMemory || u.files > first.files+freeFiles || u.goroutines > first.goroutines+freeGoroutines
}

// cpu returns the CPU time that all threads have used.
func cpu(pid int) (time.Duration, error) {
	// The clock of a process (clock_getcpuclockid(3)).
	const scheduled = 2
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|scheduled), &t)
	return time.Duration(t.Nano()), err
}

func usageOf(ctx context.Context, d *lab.Daemon) (u usage, err error) {
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID()))
	if err != nil {
		return u, err
	}
	code, body, err := d.Get(ctx, "/metrics")
	if err != nil || code != http.StatusOK {
		return u, errors.Join(err, fmt.Errorf("/metrics: %d", code))
	}
	u.files = len(files)
	for line := range strings.Lines(body) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		number, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "process_resident_memory_bytes":
			u.memory = int(number)
		case "go_goroutines":
			u.goroutines = int(number)
		}
	}
	if u.memory == 0 || u.goroutines == 0 {
		return u, errors.New("/metrics lacks memory or goroutines")
	}
	return u, nil
}
