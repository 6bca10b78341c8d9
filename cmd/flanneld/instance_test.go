package main

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/health"
	"flannel/internal/testkit/nstest"
	"flannel/kernel"
)

func TestTheLockDecidesWhoRuns(t *testing.T) {
	ns := nstest.New(t)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		registry := health.New(func() {})
		d := &daemon{
			options: &options{etcdPrefix: "/one"}, log: slog.New(slog.NewTextHandler(&log, nil)),
			lockDir: filepath.Join(t.TempDir(), "lock"), alone: registry.Add(health.Required, "instance", "not claimed yet"),
		}
		began := time.Now()
		claim := func() {
			held, err := d.claim(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			if err := held.Close(); err != nil {
				t.Error(err)
			}
		}
		ns.Do(func() {
			if claim(); time.Since(began) != 0 || log.Len() > 0 {
				t.Errorf("alone: after %v\n%s", time.Since(began), log.String())
			}

			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			if err := unix.Bind(fd, &unix.SockaddrUnix{Name: kernel.SocketName("/one")}); err != nil {
				t.Error(err)
			}
			claim()
			if took := time.Since(began); took != nameWait || strings.Count(log.String(), "\n") != 1 || !registry.Ready() {
				t.Errorf("with a squatter: after %v, ready %t\n%s", took, registry.Ready(), log.String())
			}
			// Between two attempts: at one moment either may be first.
			time.AfterFunc(nameWait/2-claimEvery/2, func() { _ = unix.Close(fd) })
			began = time.Now()
			if claim(); time.Since(began) != nameWait/2 {
				t.Errorf("with an earlier version that ends: after %v", time.Since(began))
			}

			other, err := kernel.LockInstance(d.lockDir, "/one")
			if err != nil {
				t.Error(err)
				return
			}
			time.AfterFunc(time.Hour-claimEvery/2, func() { _ = other.Close() })
			began = time.Now()
			if claim(); time.Since(began) != time.Hour {
				t.Errorf("with another daemon: after %v", time.Since(began))
			}
			if !strings.Contains(log.String(), "another flanneld on this host uses /one") {
				t.Errorf("log:\n%s", log.String())
			}
		})
	})
}
