// Package doctor tests what flanneld doctor reports on hosts on which something is
// wrong, and that it reports nothing on healthy ones.
package doctor

import (
	"context"
	"sync"
	"testing"
	"time"

	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

var built = sync.OnceValues(func() (lab.Binaries, error) { return lab.BuildBinaries() })

// newLab returns a lab in which flanneld is ready on all hosts, each with a pod.
func newLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	var err error
	o.Binaries, err = built()
	lab.Must(t, err)
	l := lab.ForTest(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lab.Must(t, l.Up(ctx))
	return l
}

// examine runs the command on a host and returns what it prints, and its exit code.
func examine(t *testing.T, h *lab.Host, args ...string) (string, int) {
	t.Helper()
	out, code, err := h.Doctor(t.Context(), args...)
	lab.Must(t, err)
	return out, code
}

func sh(t *testing.T, h *lab.Host, script string) {
	t.Helper()
	out, err := h.Exec(t.Context(), "sh", "-ec", script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// healthy waits for a doctor that finds nothing: a daemon may be busy for a moment.
func healthy(t *testing.T, h *lab.Host) {
	t.Helper()
	eventually.Says(t, func() (string, bool) {
		out, code := examine(t, h)
		return out, code == 0
	})
}
