package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is a running daemon, looked at from outside.
type process int

// cpu returns the CPU time that all threads have used, in user space and in
// the kernel. It is exact, unlike the ticks of /proc/PID/stat.
func (p process) cpu() (time.Duration, error) {
	// The clock of a process (clock_getcpuclockid(3)): its number in the upper
	// bits, inverted, and "as scheduled" below.
	const scheduled = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^int(p)<<3|scheduled), &t); err != nil {
		return 0, fmt.Errorf("read the CPU time of process %d: %w", p, err)
	}
	return time.Duration(t.Nano()), nil
}

// peakMemory returns the highest resident size so far in bytes.
func (p process) peakMemory() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmHWM", p)
}

// routes returns how many IPv4 prefixes the main routing table of the process's
// network has. It reads a summary, which is much cheaper than a dump.
func (p process) routes() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/fib_triestat", p))
	if err != nil {
		return 0, err
	}
	inMain := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		value, found := strings.CutPrefix(line, "Prefixes:")
		switch {
		case strings.HasSuffix(line, ":"):
			inMain = line == "Main:"
		case found && inMain:
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, fmt.Errorf("process %d has no main routing table", p)
}
