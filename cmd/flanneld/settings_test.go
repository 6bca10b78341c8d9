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
		s := newSettings(slog.New(slog.NewTextHandler(&log, nil)), registry)
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

func TestALookAtSettingsThatHangs(t *testing.T) {
	config, err := subnet.ParseConfig([]byte(`{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}`), false)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		registry := health.New(nil)
		s := newSettings(slog.New(slog.DiscardHandler), registry)
		s.root = t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		done, uplink := make(chan error, 1), make(chan string)
		go func() { done <- s.run(ctx) }()
		time.Sleep(time.Hour)
		if got := registry.Hanging(); len(got) > 0 {
			t.Errorf("before anything is known: %q", got)
		}
		s.start(network.FilterEnv{Config: config, Uplink: func() string { return <-uplink }})
		time.Sleep(6 * time.Minute)
		if got := registry.Hanging(); len(got) != 1 {
			t.Errorf("got %q, want the loop of settings", got)
		}
		close(uplink)
		synctest.Wait()
		if got := registry.Hanging(); len(got) > 0 {
			t.Errorf("after the look: %q", got)
		}
		cancel()
		<-done
	})
}
