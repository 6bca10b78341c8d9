package lab_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

func TestClusterComesUpAndPodsReachEachOther(t *testing.T) {
	o := withStore(t, 3)
	o.Families = lab.Dual
	l := lab.ForTest(t, o)
	if err := l.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitConnected(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := l.PingAll(t.Context())
	if err := m.Err(); err != nil || len(m) != 12 {
		t.Errorf("%d pings, want 12: %v", len(m), err)
	}
	if table := m.String(); strings.Count(table, "\n") != 4 || strings.Contains(table, "lost") {
		t.Errorf("table:\n%s", table)
	}
	n, err := l.Node("host2/pod1")
	if err != nil || n != l.Hosts[1].Pods()[0].Node {
		t.Errorf("node host2/pod1: %v, %v", n, err)
	}
	if _, err := l.Node("host4"); err == nil {
		t.Error("there is a host4")
	}
}

func TestDaemonIsKilledAndStartedAgain(t *testing.T) {
	l := lab.ForTest(t, withStore(t, 2))
	if err := l.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitConnected(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, b := l.Hosts[0], l.Hosts[1]
	before, err := b.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	series, err := a.Pods()[0].StartPing(b.Pods()[0].Addr(ipfam.V4), 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	pid := b.Flanneld().PID()
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	<-b.Flanneld().Exited()
	if err := b.StartFlanneld(); err != nil {
		t.Fatal(err)
	}
	if err := b.StartFlanneld(); err == nil {
		t.Error("a running daemon was started")
	}
	if err := b.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := series.Stop(); got.Lost > 0 {
		t.Errorf("ping over a restart: %s", got)
	}
	if after, err := b.Subnet(); err != nil || after != before {
		t.Errorf("subnet %v, %v after the restart, want %v", after, err, before)
	}
	if got := b.Flanneld().PID(); got == pid {
		t.Error("the same process after a restart")
	}
	if n := strings.Count(b.Log(), "flanneld starts"); n != 2 {
		t.Errorf("%d starts in the log, want 2:\n%s", n, b.Log())
	}
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	if code := b.Flanneld().ExitCode(); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

func TestSecondDaemonOnOneHost(t *testing.T) {
	l := lab.ForTest(t, withStore(t, 1))
	if err := l.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	config := `{"Network": "10.99.0.0/16", "Backend": {"Type": "vxlan", "VNI": 2}}`
	if err := l.Etcd.Put(t.Context(), "/second/config", config); err != nil {
		t.Fatal(err)
	}
	h := l.Hosts[0]
	d, err := h.StartDaemon(lab.DaemonOptions{
		Name: "second", Prefix: "/second", SubnetFile: "/run/flannel/second.env", HealthPort: 8082,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"flannel.1", "flannel.2"} {
		if _, err := h.Interface(name); err != nil {
			t.Error(err)
		}
	}
}

func TestWaitReadySaysWhatIsMissing(t *testing.T) {
	o := withStore(t, 1)
	o.NoConfig = true
	l := lab.ForTest(t, o)
	h := l.Hosts[0]
	if err := h.StartFlanneld(); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the daemon answers that it is not ready", func() bool {
		code, _, err := h.Flanneld().Get(t.Context(), "/readyz")
		return err == nil && code == 503
	})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := h.WaitReady(ctx); err == nil || !strings.Contains(err.Error(), "not ready yet") {
		t.Errorf("err = %v", err)
	}
}

func TestWaitReadyShowsWhyADaemonEnded(t *testing.T) {
	l := lab.ForTest(t, withStore(t, 1))
	h := l.Hosts[0]
	h.Flags = []string{"--subnet-lease-renew-margin=0"}
	if err := h.StartFlanneld(); err != nil {
		t.Fatal(err)
	}
	err := h.WaitReady(t.Context())
	if err == nil || !strings.Contains(err.Error(), "renew-margin") {
		t.Errorf("err = %v", err)
	}
}
