package lab

import (
	"context"
	"errors"
	"os/exec"
)

// Doctor runs flanneld doctor on the host, and returns what it prints and its exit
// code.
func (h *Host) Doctor(ctx context.Context, args ...string) (out string, code int, err error) {
	out, err = h.Exec(ctx, append([]string{h.lab.options.Binaries.Flanneld, "doctor"}, args...)...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out, exit.ExitCode(), nil
	}
	return out, 0, err
}
