// Package e2e tests whole clusters: real flanneld processes on hosts of the
// lab, a real etcd, and pods that ping each other.
package e2e

import (
	"context"
	"sync"
	"testing"
	"time"

	"flannel/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// built are the programs; the daemon has the race detector.
var built = sync.OnceValues(func() (lab.Binaries, error) { return lab.BuildBinaries("-race") })

// waitLimit bounds every wait: far more than anything takes.
const waitLimit = 20 * time.Second

// newLab returns a lab with the programs filled in.
func newLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	o.Binaries = binaries(t)
	return lab.ForTest(t, o)
}

func binaries(t *testing.T) lab.Binaries {
	t.Helper()
	b, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// up starts flanneld on every host, waits until all are ready, and until every
// pod reaches every other.
func up(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	if err := l.Up(ctx); err != nil {
		t.Fatal(err)
	}
	connected(t, l)
}

// connected waits until every pod reaches every other.
func connected(t *testing.T, l *lab.Lab) time.Duration {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	if err := l.WaitConnected(ctx); err != nil {
		t.Fatalf("%v\n%s", err, l.PingAll(t.Context()))
	}
	return time.Since(start)
}
