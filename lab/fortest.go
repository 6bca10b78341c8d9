package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"flannel/lab/cgroup"
	"flannel/lab/ping"
	"flannel/lab/sandbox"
)

// Main is the body of TestMain for tests that use a lab: it runs the test
// binary again inside a sandbox, with the same arguments, streams and exit
// code. Without the rights for namespaces the tests run outside, where
// ForTest skips them.
func Main(m interface{ Run() int }) {
	outside := sandbox.Outside()
	code, err := sandbox.Run(m.Run)
	if errors.Is(err, sandbox.ErrUnavailable) {
		code = m.Run()
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
	}
	// What a lab has left that was interrupted. Only outside it has ended.
	if outside {
		if err := cgroup.Sweep(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "lab:", err)
		}
	}
	os.Exit(code)
}

// TB is the part of testing.TB that ForTest needs.
type TB interface {
	Helper()
	Cleanup(func())
	Context() context.Context
	Failed() bool
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Skip(args ...any)
}

// ForTest makes a lab that ends with the test. When the test has failed, the
// end of every log is shown.
func ForTest(t TB, o Options) *Lab {
	t.Helper()
	if !sandbox.Active() {
		t.Skip("this test needs lab.Main in TestMain, and the rights to make namespaces")
	}
	l, err := New(t.Context(), o)
	if err != nil {
		t.Fatalf("make a lab: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			l.logTails(t)
		}
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	return l
}

func (l *Lab) logTails(t TB) {
	for _, h := range l.Hosts {
		h.mu.Lock()
		daemons := append([]*Daemon{h.flanneld}, h.daemons...)
		h.mu.Unlock()
		for _, d := range daemons {
			if text := d.Tail(40); text != "" {
				t.Logf("end of the log of %s on %s:\n%s", d.options.Name, h.Name, text)
			}
		}
	}
	for _, h := range l.Hosts {
		if h.Worker != nil {
			t.Logf("end of the logs of %s:\n%s", h.Name, h.Worker.logTails(10))
		}
	}
	if l.Kubernetes != nil {
		t.Logf("end of the log of the API server:\n%s", lastLines(l.Kubernetes.api.log(), 10))
	}
	if text := lastLines(l.Etcd.Log(), 10); text != "" {
		t.Logf("end of the log of etcd:\n%s", text)
	}
}

// NothingLost ends a continuous ping and fails the test when a packet is
// missing.
func NothingLost(t TB, series *ping.Series) {
	t.Helper()
	result := series.Stop()
	t.Logf("%s", result)
	if result.Lost > 0 || result.Sent == 0 {
		t.Errorf("%d of %d pings lost", result.Lost, result.Sent)
	}
}

// Must ends the test at an error.
func Must(t TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// Limited returns the context of the test, which ends after d at the latest.
func Limited(t TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
