package logging

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
)

func logger(t *testing.T, o Options) (*slog.Logger, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	log, err := New(&out, o)
	if err != nil {
		t.Fatal(err)
	}
	return log, &out
}

func TestVerbosity(t *testing.T) {
	tests := []struct {
		name string
		o    Options
		want string // which of these are shown
	}{
		{"the default", Options{}, "error info"},
		{"just below debug", Options{V: 3}, "error info v3"},
		{"debug", Options{V: 4}, "error info v3 debug"},
		{"more", Options{V: 6}, "error info v3 debug v6"},
		{"this file", Options{VModule: "logging_test=4"}, "error info v3 debug"},
		{"this file with its ending", Options{VModule: "logging_test.go=4"}, "error info v3 debug"},
		{"a pattern", Options{VModule: "other=1, logging*=6"}, "error info v3 debug v6"},
		{"another file", Options{VModule: "watch=6"}, "error info"},
		{"less for this file", Options{V: 6, VModule: "logging_*=0"}, "error info"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			log, out := logger(t, test.o)
			log = log.With("a", 1).WithGroup("g")
			log.Error("error")
			log.Info("info")
			log.Log(context.Background(), slog.Level(-3), "v3")
			log.Debug("debug")
			log.Log(context.Background(), slog.Level(-6), "v6")
			var got []string
			for line := range strings.Lines(out.String()) {
				_, rest, _ := strings.Cut(line, "msg=")
				name, _, _ := strings.Cut(rest, " ")
				got = append(got, name)
			}
			if got := strings.Join(got, " "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestBacktrace(t *testing.T) {
	_, _, line, _ := runtime.Caller(0)
	log, out := logger(t, Options{BacktraceAt: fmt.Sprintf("logging_test.go:%d", line+2)})
	log.Info("with")
	if !strings.Contains(out.String(), "goroutine ") || !strings.Contains(out.String(), "TestBacktrace") {
		t.Errorf("no stack in %q", out.String())
	}
	out.Reset()
	log.Info("without")
	if strings.Contains(out.String(), "goroutine ") {
		t.Errorf("a stack in %q", out.String())
	}
}

func TestBadFlags(t *testing.T) {
	bad := []Options{
		{VModule: "watch"}, {VModule: "watch=x"}, {VModule: "=3"}, {VModule: "[=3"}, {VModule: "a=-1"},
		{BacktraceAt: "watch.go"}, {BacktraceAt: "watch.go:x"}, {BacktraceAt: ":7"}, {BacktraceAt: "watch.go:0"},
	}
	for _, o := range bad {
		_, err := New(&bytes.Buffer{}, o)
		if err == nil || !strings.HasPrefix(err.Error(), "--") || !strings.Contains(err.Error(), "use ") {
			t.Errorf("%+v: got %v", o, err)
		}
	}
	for _, o := range []Options{{BacktraceAt: ":0"}, {VModule: ","}} {
		if _, err := New(&bytes.Buffer{}, o); err != nil {
			t.Error(err)
		}
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	log, err := New(&out, Options{Format: FormatJSON})
	if err != nil {
		t.Fatal(err)
	}
	log.With("node", "a").Info("peer added", "subnet", "10.5.1.0/24")
	var line struct{ Level, Msg, Node, Subnet string }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Level != "INFO" || line.Msg != "peer added" || line.Node != "a" || line.Subnet != "10.5.1.0/24" {
		t.Errorf("got %s, %v", out.String(), err)
	}
	if _, err := New(&out, Options{Format: "xml"}); err == nil || !strings.Contains(err.Error(), "--log-format") {
		t.Errorf("got %v", err)
	}
}
