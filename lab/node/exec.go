package node

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Start starts a program on the node; prepare may set its streams, folder and
// environment. The program is looked up as the node sees the files. The caller
// waits for it.
func (n *Node) Start(ctx context.Context, args []string, prepare func(*exec.Cmd) error) (*exec.Cmd, error) {
	var cmd *exec.Cmd
	err := n.Do(func() error {
		cmd = exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = environment()
		// Pipes that a grandchild keeps open must not hold up Wait.
		cmd.WaitDelay = time.Second
		if err := prepare(cmd); err != nil {
			return err
		}
		return cmd.Start()
	})
	if err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", args[0], n.Name, err)
	}
	return cmd, nil
}

// Exec runs a program on the node and returns its standard output. The error
// carries the end of its standard error.
func (n *Node) Exec(ctx context.Context, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd, err := n.Start(ctx, args, func(cmd *exec.Cmd) error {
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		return nil
	})
	if err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %s: %w: %s", n.Name, strings.Join(args, " "), err, tail(stderr.String(), 2000))
	}
	return stdout.String(), nil
}

// environment is the caller's without what would set up flanneld behind the
// lab's back.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "FLANNELD_") || strings.HasPrefix(v, "NOTIFY_SOCKET=")
	})
}

func tail(s string, n int) string {
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-n):]
}
