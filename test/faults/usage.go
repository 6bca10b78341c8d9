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

// usage is what a daemon uses. heap is the size at which the Go runtime collects
// garbage next, about twice of what the last collection left: a leak shows there,
// but not the garbage of a busy moment, nor what the runtime keeps of it for later.
type usage struct {
	heap, files, goroutines int
}

// settled is the number of rounds after which a daemon has what it keeps:
// connections, caches, a heap that was collected under load.
const settled = 3

// Growth that is none. A heap of 4 MB has 4 more after a burst of 2,000 peers, of
// which most goes with the next collections.
const (
	freeHeap       = 8 << 20
	freeFiles      = 3
	freeGoroutines = 3
)

// A daemon is idle that uses at most so much CPU time in so long. This is its own
// time, whatever else the machine does.
const (
	look = time.Second
	idle = look / 50
)

// frugal checks that a daemon comes to rest, and has not grown since the first
// rounds. What goes on rarely, such as a resync, is no unrest.
func (s *suite) frugal(ctx context.Context, i int) error {
	daemon, name := s.lab.Hosts[i].Flanneld(), s.lab.Hosts[i].Name
	const tries = 5
	var used time.Duration
	var u usage
	for range tries {
		before, err := cpu(daemon.PID())
		if err != nil {
			return err
		}
		if err := pause(ctx, look); err != nil {
			return err
		}
		now, err := cpu(daemon.PID())
		if err != nil {
			return err
		}
		if used = now - before; used > idle {
			continue
		}
		if u, err = usageOf(ctx, daemon); err != nil || s.usage == nil || !u.exceeds(s.usage[i]) {
			return err
		}
	}
	if used > idle {
		return fmt.Errorf("%s: does not come to rest: %s of CPU in %s", name, used, look)
	}
	return fmt.Errorf("%s: has grown: %+v after %d rounds, %+v now", name, s.usage[i], settled, u)
}

// measure notes what the daemons use, for frugal to compare with.
func (s *suite) measure(ctx context.Context) error {
	for _, h := range s.lab.Hosts {
		u, err := usageOf(ctx, h.Flanneld())
		if err != nil {
			return err
		}
		s.usage = append(s.usage, u)
	}
	return nil
}

func (u usage) exceeds(base usage) bool {
	return u.heap > base.heap+freeHeap || u.files > base.files+freeFiles || u.goroutines > base.goroutines+freeGoroutines
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
		case "go_memstats_next_gc_bytes":
			u.heap = int(number)
		case "go_goroutines":
			u.goroutines = int(number)
		}
	}
	if u.heap == 0 || u.goroutines == 0 {
		return u, errors.New("/metrics lacks the heap or goroutines")
	}
	return u, nil
}
