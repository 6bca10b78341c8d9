package main

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
			lockDir: filepath.Join(t.TempDir(), "lock"), instance: registry.Require("instance", "not locked yet"),
		}
		began := time.Now()
		lock := func() {
			held, err := d.lock(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			if err := held.Close(); err != nil {
				t.Error(err)
			}
		}
		ns.Do(func() {
			if lock(); time.Since(began) != 0 || log.Len() > 0 {
				t.Errorf("alone: after %v\n%s", time.Since(began), log.String())
			}

			other, err := kernel.LockInstance(d.lockDir, "/one")
			if err != nil {
				t.Error(err)
				return
			}
			time.AfterFunc(time.Hour-lockEvery/2, func() { _ = other.Close() })
			began = time.Now()
			if lock(); time.Since(began) != time.Hour {
				t.Errorf("with another daemon: after %v", time.Since(began))
			}
			if !strings.Contains(log.String(), "another flanneld on this host uses /one") {
				t.Errorf("log:\n%s", log.String())
			}
		})
	})
}
