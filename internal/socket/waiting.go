package socket

import (
	"context"
	"strings"
	"time"
)

// patience is how long Waiting gives the daemon: who asks is about to fail, and
// the runtime waits for it.
const patience = 200 * time.Millisecond

// causes are the lines of /readyz that explain the others, and dependent the rest
// in the order in which a start gets by them: what comes later follows from what
// comes first.
var (
	causes    = []string{"store", "waiting for"}
	dependent = []string{"instance", "network configuration", "uplink", "lease", "device", "rules", "first pass", "subnet file"}
)

// Waiting returns what the daemon at a socket waits for, in one line.
func Waiting(ctx context.Context, path string) string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, body, err := Get(ctx, path, "/readyz")
	if err != nil {
		return err.Error()
	}
	return Cause(string(body))
}

// Cause shortens a body of /readyz to what explains it, in one line.
func Cause(readyz string) string {
	first, rest, _ := strings.Cut(readyz, "\n")
	var lines []string
	for _, name := range causes {
		lines = append(lines, find(rest, name)...)
	}
	for _, name := range dependent {
		if len(lines) == 0 {
			lines = find(rest, name)
		}
	}
	if len(lines) == 0 {
		return first
	}
	return first + ": " + strings.Join(lines, "; ")
}

// find returns the line of a check, if there is one.
func find(lines, name string) []string {
	for line := range strings.Lines(lines) {
		if strings.HasPrefix(line, name+": ") {
			return []string{strings.TrimSpace(line)}
		}
	}
	return nil
}
