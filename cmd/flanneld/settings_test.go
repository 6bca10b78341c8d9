package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flannel/internal/health"
	"flannel/network"
	"flannel/subnet"
)

func TestSettingsAreANoteAsLongAsTheyAreWrong(t *testing.T) {
	config, err := subnet.ParseConfig([]byte(`{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}`), false)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	set := func(name, value string) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set("net/bridge/bridge-nf-call-iptables", "1")
	synctest.Test(t, func(t *testing.T) {
		registry := health.New(nil)
		var log bytes.Buffer
		s := newSettings(slog.New(slog.NewTextHandler(&log, nil)), registry.Note("settings", "HostSettings"))
		s.root = root
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.run(ctx) }()
		s.start(network.FilterEnv{Config: config, Uplink: func() string { return "eth0" }})
		says := func(want string) {
			t.Helper()
			time.Sleep(3 * settingsEvery)
			synctest.Wait()
			if got := strings.Join(registry.Problems(), "\n"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		says("")
		set("net/ipv4/ip_forward", "0")
		says("settings: net.ipv4.ip_forward is 0: the host forwards no IPv4 packets of pods; set it with: sysctl -w net.ipv4.ip_forward=1")
		set("net/ipv4/ip_forward", "1")
		says("")
		set("net/ipv4/conf/eth1/rp_filter", "1")
		says("")
		cancel()
		<-done
		if text := log.String(); strings.Count(text, "level=WARN") != 1 || strings.Count(text, "settings of this host are as pods need them") != 1 {
			t.Errorf("log\n%s", text)
		}
	})
}
