package kube

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAChangedFileIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := t.TempDir() + "/net-conf.json"
		write := func(text string) {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write("one")
		var log book
		m := &Manager{o: Options{NetConfigPath: path}, log: slog.New(slog.NewTextHandler(&log, nil)), configRaw: []byte("one")}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.followConfig(ctx) }()
		for i, text := range []string{"one", "two", "two", "one", "three"} {
			write(text)
			<-time.After(configEvery + time.Second)
			want := []int{0, 1, 1, 1, 2}[i]
			if n := strings.Count(log.String(), "level=WARN"); n != want {
				t.Errorf("after %q: %d warnings, want %d", text, n, want)
			}
		}
		cancel()
		<-done
	})
}

func TestBadFiles(t *testing.T) {
	for text, want := range map[string]string{
		"{":                      "net-conf.json: network configuration",
		`{"Network": "here"}`:    "Network",
		`{"EnableIPv4": false}`:  "EnableIPv4 and EnableIPv6",
		`{"Network": "1.2.3.4"}`: "Network",
	} {
		m := &Manager{o: Options{NetConfigPath: t.TempDir() + "/net-conf.json"}}
		if err := os.WriteFile(m.o.NetConfigPath, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := m.readConfig(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
